"""The API's methods and the numerics' agree in parameters, defaults, and where their updates lead."""

import dataclasses
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
from fixtures.combinations import predicted
from fixtures.dense import checkpoints

from nextrapolate.schemas import DareMethod, Method, NextMethod
from nextrapolate.schemas.method_parameters import HorizonFreeParameters
from nextrapolate_numerics import Dare, Next, NextPaper, Trajectory, extract
from nextrapolate_numerics import Method as NumericsMethod
from nextrapolate_worker.methods import NUMERICS, numerics_method

API_METHODS: tuple[type[Method], ...] = get_args(get_args(Method)[0])
NO_SEED = frozenset({"seed"})


def test_each_method_of_the_api_has_numerics_behind_it() -> None:
    assert {*NUMERICS, NextMethod} == set(API_METHODS)


def parameters_of(api_method: type[Method], not_in_numerics: frozenset[str]) -> dict[str, object]:
    return {
        name: field.default
        for name, field in api_method.model_fields.items()
        if name not in {"name", "alpha", "horizon_steps"} | not_in_numerics
    }


def fields_of(method: NumericsMethod) -> dict[str, object]:
    return {field.name: field.default for field in dataclasses.fields(method)}


@pytest.mark.parametrize("api_method", [method for method in API_METHODS if method is not NextMethod])
def test_parameters_and_defaults_are_the_same(api_method: type[Method]) -> None:
    nothing_random = NO_SEED if api_method is not DareMethod else frozenset()
    assert fields_of(numerics_method(api_method())) == parameters_of(api_method, nothing_random)


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_preset_has_the_parameters_that_are_not_the_others(preset: Literal["default", "paper"]) -> None:
    method = NextMethod(preset=preset)
    nothing_random = NO_SEED if preset == "default" else frozenset()
    expected = parameters_of(NextMethod, method.foreign | {"preset"} | nothing_random)
    assert fields_of(numerics_method(method)) == expected
    assert type(numerics_method(method)) is {"default": Next, "paper": NextPaper}[preset]


@pytest.mark.parametrize("api_method", API_METHODS)
def test_where_an_update_leads_is_what_the_class_says(api_method: type[Method], run_folder: Path) -> None:
    """Averages stay at the last step; what takes no notice of the horizon is no forecast of a step."""
    trajectory = Trajectory.open(checkpoints(run_folder))
    found = []
    for horizon_steps in (20, 60):
        method = api_method(horizon_steps=horizon_steps)
        behind = numerics_method(method)
        update = behind.fit(extract(trajectory, behind, horizon_steps), horizon_steps)
        assert trajectory.steps[-1] + update.horizon_steps == method.target_step(trajectory.steps[-1])
        found.append(predicted(update, trajectory))
    near, far = found
    assert np.array_equal(near, far) is issubclass(api_method, HorizonFreeParameters)


def test_parameters_are_passed_on() -> None:
    assert numerics_method(DareMethod(seed=7)) == Dare(seed=7)
    assert numerics_method(NextMethod(rank=3, use_local=False)) == Next(rank=3, use_local=False)
    assert numerics_method(NextMethod(preset="paper", seed=7, epochs=9)) == NextPaper(seed=7, epochs=9)
