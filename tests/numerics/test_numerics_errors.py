"""Every error pickles, has a slug of its own or of its kind, and says something."""

import pickle
from pathlib import Path

import pytest

from nextrapolate_numerics import (
    AbsentCheckpointError,
    BrokenAdapterError,
    JumpWithoutCheckpointError,
    LineStepError,
    MismatchedAdaptersError,
    NoBacktestError,
    NonFiniteResultError,
    NonFiniteWeightsError,
    NothingMovedError,
    NothingToPredictError,
    NumericsError,
    RoundedAwayError,
    ScoreCountError,
    StepOrderError,
    TooFewCheckpointsError,
    UnsupportedAdapterError,
)

FILE = Path("run/adapter_model.safetensors")
ERRORS = [
    UnsupportedAdapterError("DoRA", "its delta is another", FILE),
    BrokenAdapterError(FILE, "it is truncated"),
    NonFiniteWeightsError("q_proj", 10, FILE),
    StepOrderError("20 follows 30"),
    MismatchedAdaptersError(FILE, FILE, "q_proj has rank 8"),
    JumpWithoutCheckpointError(20),
    TooFewCheckpointsError("next", have=3, need=6),
    ScoreCountError("rewards", have=3, need=6),
    LineStepError("from_step", 35, (10, 20)),
    AbsentCheckpointError(35, "which was asked for", (10, 20)),
    NothingToPredictError(20, 30),
    NoBacktestError("the series is too short", 10),
    NothingMovedError(),
    NonFiniteResultError("q_proj", "float16"),
    RoundedAwayError("float16", 0.7),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_a_process_border(error: NumericsError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert str(error).endswith(".") or isinstance(error, StepOrderError)


def test_slugs_are_unique() -> None:
    named = {next(kind for kind in type(error).__mro__ if "code" in vars(kind)) for error in ERRORS}
    assert len({error.code for error in ERRORS}) == len(named)
    assert len(named) == len(ERRORS) - 1, "only a line and a backtest miss a checkpoint alike"
