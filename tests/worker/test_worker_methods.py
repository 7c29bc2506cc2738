"""The API's methods and the numerics' agree in parameters and defaults."""

import dataclasses
from typing import Literal, get_args

import pytest

from nextrapolate.schemas import DareMethod, Method, NextMethod
from nextrapolate_numerics import Dare, Next, NextPaper
from nextrapolate_numerics import Method as NumericsMethod
from nextrapolate_worker.methods import numerics_method

API_METHODS: tuple[type[Method], ...] = get_args(get_args(Method)[0])
NO_SEED = frozenset({"seed"})


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


def test_parameters_are_passed_on() -> None:
    assert numerics_method(DareMethod(seed=7)) == Dare(seed=7)
    assert numerics_method(NextMethod(rank=3, use_local=False)) == Next(rank=3, use_local=False)
    assert numerics_method(NextMethod(preset="paper", seed=7, epochs=9)) == NextPaper(seed=7, epochs=9)
