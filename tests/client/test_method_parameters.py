"""Parameters of methods as text, which is how a command line has them."""

import shlex
from typing import Any

import pytest

from nextrapolate.errors import ParameterError
from nextrapolate.methods import METHODS, label, make_method, options
from nextrapolate.schemas import (
    AlphaRlMethod,
    NextMethod,
    SoupMethod,
    WeightExtrapolationMethod,
    beyond_defaults,
)


def test_numbers_for_each_checkpoint_are_separated_by_commas() -> None:
    rewards = (0.31, 0.35, 0.42)
    assert make_method("alpharl", rewards="0.31,0.35, 0.42") == AlphaRlMethod(rewards=rewards)
    assert make_method("alpharl", rewards=[0.31, 0.35, 0.42]) == AlphaRlMethod(rewards=rewards)
    greedy = SoupMethod(selection="greedy", scores=rewards)
    assert make_method("soup", selection="greedy", scores="0.31,0.35,0.42") == greedy


def test_a_window_is_a_number_or_auto() -> None:
    assert make_method("weight-extrapolation", window_steps="70") == WeightExtrapolationMethod(
        window_steps=70
    )
    chosen = make_method("weight-extrapolation", window_steps="auto")
    assert chosen == WeightExtrapolationMethod(window_steps="auto")


def test_a_preset_has_its_own_alpha_unless_one_was_given() -> None:
    published = make_method("next", preset="paper", horizon_steps=100)
    assert (published.alpha, make_method("next").alpha) == (1.5, 1.0)
    assert make_method(NextMethod(horizon_steps=100), preset="paper") == published
    assert make_method(published, preset="default") == NextMethod(horizon_steps=100)
    for alpha in (1.0, 1.5, 2.0):
        given = make_method(NextMethod(alpha=alpha), preset="paper")
        assert given.alpha == make_method(given, preset="default").alpha == alpha
        assert NextMethod.model_validate_json(given.model_dump_json()) == given


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("alpharl", {"rewards": "0.3,high,0.4"}),
        ("alpharl", {"rewards": "0.3,nan,0.4"}),
        ("alpharl", {"rewards": "0.3"}),
        ("weight-extrapolation", {"window_steps": "0"}),
        ("weight-extrapolation", {"window_steps": "long"}),
        ("dare", {"drop": "1"}),
        ("maec", {"share": "0"}),
    ],
)
def test_a_value_out_of_range_is_named(method: str, parameters: dict[str, str]) -> None:
    (name,) = parameters
    with pytest.raises(ParameterError, match=rf"{method}: {name}(\.1)?: "):
        make_method(method, **parameters)


@pytest.mark.parametrize(
    ("method", "said", "asked"),
    [
        (make_method("auto", horizon_steps=200), "auto", "--method auto"),
        (make_method("next", preset="paper"), "next preset=paper", "--method next --set preset=paper"),
        (
            make_method("next", preset="paper", alpha=0.7),
            "next alpha=0.7 preset=paper",
            "--method next --alpha 0.7 --set preset=paper",
        ),
        (make_method("next", preset="paper", alpha=1.0), "next alpha=1.0 preset=paper", None),
        (make_method("weight-extrapolation", window_steps="auto"), None, None),
        (
            make_method("alpharl", rewards=[0.31, 0.35, 0.42], target_reward=0.5),
            "alpharl rewards=(3) target_reward=0.5",
            None,
        ),
        (make_method("soup", selection="greedy", scores=[1, 2, 3.5]), None, None),
        *((make_method(name), name, f"--method {name}") for name in METHODS),
    ],
)
def test_a_method_is_written_as_it_is_asked_for(method: Any, said: str | None, asked: str | None) -> None:
    assert said in (None, label(method))
    assert asked in (None, options(method))
    assert type(method).model_validate(beyond_defaults(method)) == method
    words = iter(shlex.split(options(method)))
    given: dict[str, str] = {}
    for option in words:
        name, value = option.removeprefix("--"), next(words)
        if name == "set":
            name, _, value = value.partition("=")
        given[name] = value
    assert make_method(given.pop("method"), horizon_steps=method.horizon_steps, **given) == method
