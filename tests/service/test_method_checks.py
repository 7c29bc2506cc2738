"""What the steps of the checkpoints alone tell about a method, at submit."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from fixtures.adapters import write_run
from fixtures.dense import checkpoints
from fixtures.problems import problem

from nextrapolate.schemas import (
    AlphaRlMethod,
    AutoregressionMethod,
    Method,
    NextMethod,
    RelexMethod,
    SoupMethod,
    WeightExtrapolationMethod,
)
from nextrapolate_numerics import TooFewCheckpointsError as NumericsTooFew
from nextrapolate_numerics import Trajectory
from nextrapolate_service.errors import MissingCheckpointError, ScoreCountError, TooFewCheckpointsError
from nextrapolate_service.method_checks import check_method
from nextrapolate_worker.methods import numerics_method


@pytest.mark.parametrize(
    ("method", "enough"),
    [
        (RelexMethod(), 2),
        (RelexMethod(degree=4), 5),
        (AlphaRlMethod(), 2),
        (AutoregressionMethod(), 2),
        (SoupMethod(), 2),
        (WeightExtrapolationMethod(window_steps="auto"), 2),
        (NextMethod(horizon_steps=35), 2),
        (NextMethod(preset="paper", horizon_steps=35), 5),
    ],
)
@pytest.mark.parametrize("from_base", [False, True])
def test_submit_and_numerics_agree_on_how_many_are_enough(
    method: Method, enough: int, from_base: bool, tmp_path: Path
) -> None:
    """A checkpoint at step 0 is the base model: methods that learn from what training did need one more."""
    learns_from_base = isinstance(method, SoupMethod | WeightExtrapolationMethod)
    needed = enough + (from_base and not learns_from_base)
    steps = [10 * place + (0 if from_base else 10) for place in range(needed)]
    check_method(method, steps, "checkpoints")
    files = checkpoints(write_run(tmp_path / "run", steps))
    numerics_method(method).check(Trajectory.open(files).drift, method.horizon_steps)
    with pytest.raises(TooFewCheckpointsError, match=f"needs at least {needed} checkpoints .* {needed - 1}:"):
        check_method(method, steps[:-1], "checkpoints")
    if needed > 2:
        with pytest.raises(NumericsTooFew, match=f"needs at least {needed} checkpoints"):
            numerics_method(method).check(Trajectory.open(files[:-1]).drift, method.horizon_steps)


@pytest.mark.parametrize(
    "method",
    [
        AlphaRlMethod(rewards=(0.1, 0.2, 0.3)),
        SoupMethod(selection="greedy", scores=(0.1, 0.2, 0.3)),
    ],
)
def test_one_number_for_each_checkpoint_is_asked_for(method: Method) -> None:
    check_method(method, [10, 20, 30], "checkpoints")
    with pytest.raises(ScoreCountError) as raised:
        check_method(method, [10, 20, 30, 40], "checkpoints")
    (name,) = method.per_checkpoint
    assert f"there are 3 {name}, and 4 checkpoints: give one for each" in str(raised.value)
    assert raised.value.field == f"method.{name}"


@pytest.mark.parametrize(
    ("ends", "steps", "says"),
    [
        ({"from_step": 15}, [10, 20, 30], "from_step cannot be 15: choose it among 0, 10, 20"),
        ({"from_step": 30}, [10, 20, 30], "from_step cannot be 30"),
        (
            {"from_step": 0, "to_step": 25},
            [10, 20, 30],
            "to_step cannot be 25: choose it among 0, 10, 20, 30",
        ),
    ],
)
def test_a_line_goes_through_checkpoints(ends: dict[str, int], steps: Sequence[int], says: str) -> None:
    check_method(WeightExtrapolationMethod(from_step=0, to_step=20), steps, "checkpoints")
    with pytest.raises(MissingCheckpointError, match=says):
        check_method(WeightExtrapolationMethod.model_validate(ends), steps, "checkpoints")


@pytest.mark.parametrize(
    ("method", "code", "says"),
    [
        ({"name": "alpharl", "rewards": [0.1, 0.2]}, "score-count", "there are 2 rewards, and 3 checkpoints"),
        ({"name": "alpharl", "rewards": [0.1, 0.1, 0.1]}, "invalid-request", "all the same"),
        ({"name": "alpharl", "target_reward": 0.9}, "invalid-request", "target_reward asks for rewards"),
        ({"name": "soup", "selection": "greedy"}, "invalid-request", "scores belong to selection"),
        ({"name": "relex", "degree": 3}, "too-few-checkpoints", "relex needs at least 4 checkpoints"),
        ({"name": "weight-extrapolation", "from_step": 11}, "missing-checkpoint", "among 0, 10, 20"),
        ({"name": "weight-extrapolation", "to_step": 20}, "invalid-request", "to_step asks for a from_step"),
    ],
)
def test_what_cannot_work_is_answered_at_submit(
    client: TestClient, series_id: str, method: dict[str, object], code: str, says: str
) -> None:
    found = problem(client.post("/jobs", json={"series": series_id, "method": method}), 422, code)
    assert says in found.model_dump_json()
