"""What the checkpoints' steps and configurations tell about a task and its methods, at submit."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.adapters import write_run
from fixtures.dense import checkpoints
from fixtures.problems import problem
from hypothesis import given
from hypothesis import strategies as st

from nextrapolate.methods import METHODS, make_method
from nextrapolate.schemas import (
    AlphaRlMethod,
    AutoregressionMethod,
    Method,
    NextMethod,
    RelexMethod,
    SoupMethod,
    WeightExtrapolationMethod,
)
from nextrapolate_numerics import NumericsError, Trajectory
from nextrapolate_numerics import TooFewCheckpointsError as NumericsTooFew
from nextrapolate_numerics.series import Drift
from nextrapolate_service.errors import (
    MissingCheckpointError,
    ScoreCountError,
    TooFewCheckpointsError,
    UnusableError,
)
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
@pytest.mark.parametrize(("first_step", "starts_at_base"), [(10, True), (0, True), (10, False), (0, False)])
def test_submit_and_numerics_agree_on_how_many_are_enough(
    method: Method, enough: int, first_step: int, starts_at_base: bool, tmp_path: Path
) -> None:
    """Where the origin is a checkpoint, methods that learn from what training did need one more."""
    learns_from_base = isinstance(method, SoupMethod | WeightExtrapolationMethod)
    origin_is_checkpoint = first_step == 0 or not starts_at_base
    needed = enough + (origin_is_checkpoint and not learns_from_base)
    steps = [10 * place + first_step for place in range(needed)]
    check_method(method, steps, "checkpoints", starts_at_base=starts_at_base)
    files = checkpoints(write_run(tmp_path / "run", steps, init_lora_weights=starts_at_base))
    numerics_method(method).check(Trajectory.open(files).drift, method.horizon_steps)
    with pytest.raises(TooFewCheckpointsError, match=f"needs at least {needed} checkpoints.* {needed - 1}:"):
        check_method(method, steps[:-1], "checkpoints", starts_at_base=starts_at_base)
    if needed > 2:
        with pytest.raises(NumericsTooFew, match=f"needs at least {needed} checkpoints"):
            numerics_method(method).check(Trajectory.open(files[:-1]).drift, method.horizon_steps)


@given(
    steps=st.lists(st.integers(0, 12).map(lambda tens: 10 * tens), min_size=2, max_size=7, unique=True).map(
        sorted
    ),
    starts_at_base=st.booleans(),
    method=st.one_of(
        st.builds(make_method, st.sampled_from(sorted(METHODS)), horizon_steps=st.integers(1, 60)),
        st.builds(NextMethod, preset=st.just("paper"), horizon_steps=st.integers(1, 60)),
        st.builds(RelexMethod, degree=st.integers(1, 5)),
        st.builds(WeightExtrapolationMethod, from_step=st.sampled_from([0, 10, 30])),
        st.builds(
            WeightExtrapolationMethod, from_step=st.sampled_from([0, 10]), to_step=st.sampled_from([20, 40])
        ),
    ),
)
def test_submit_and_numerics_agree_on_any_steps(
    steps: list[int], starts_at_base: bool, method: Method
) -> None:
    """What is accepted at submit does not fail in the worker, and the other way round."""
    try:
        check_method(method, steps, "checkpoints", starts_at_base=starts_at_base)
        early = None
    except UnusableError as refusal:
        early = refusal
    try:
        drift = Drift.of(steps, [], starts_at_base=starts_at_base)
        numerics_method(method).check(drift, method.horizon_steps)
        late = None
    except NumericsError as refusal:
        late = refusal
    assert (early is None) is (late is None), (early, late)


@pytest.mark.parametrize(
    "method",
    [
        AlphaRlMethod(rewards=(0.1, 0.2, 0.3)),
        SoupMethod(selection="greedy", scores=(0.1, 0.2, 0.3)),
    ],
)
def test_one_number_for_each_checkpoint_is_asked_for(method: Method) -> None:
    check_method(method, [10, 20, 30], "checkpoints", starts_at_base=True)
    with pytest.raises(ScoreCountError) as raised:
        check_method(method, [10, 20, 30, 40], "checkpoints", starts_at_base=True)
    (name,) = method.per_checkpoint
    assert f"there are 3 {name}, but 4 checkpoints: give one for each" in str(raised.value)
    assert raised.value.field == f"method.{name}"


@pytest.mark.parametrize(
    ("ends", "steps", "says"),
    [
        ({"from_step": 15}, [10, 20, 30], "from_step cannot be 15: choose one of 0, 10, 20"),
        ({"from_step": 30}, [10, 20, 30], "from_step cannot be 30"),
        (
            {"from_step": 0, "to_step": 25},
            [10, 20, 30],
            "to_step cannot be 25: choose one of 0, 10, 20, 30",
        ),
    ],
)
def test_a_line_goes_through_checkpoints(ends: dict[str, int], steps: Sequence[int], says: str) -> None:
    line = WeightExtrapolationMethod(from_step=0, to_step=20)
    check_method(line, steps, "checkpoints", starts_at_base=True)
    with pytest.raises(MissingCheckpointError, match=says):
        check_method(
            WeightExtrapolationMethod.model_validate(ends), steps, "checkpoints", starts_at_base=True
        )


def test_a_line_from_a_base_model_at_which_the_run_did_not_start() -> None:
    with pytest.raises(MissingCheckpointError, match=r"from_step cannot be 0: choose one of 10, 20$"):
        check_method(
            WeightExtrapolationMethod(from_step=0), [10, 20, 30], "checkpoints", starts_at_base=False
        )


@pytest.mark.parametrize(
    ("method", "code", "says"),
    [
        ({"name": "alpharl", "rewards": [0.1, 0.2]}, "score-count", "there are 2 rewards, but 3 checkpoints"),
        ({"name": "alpharl", "rewards": [0.1, 0.1, 0.1]}, "invalid-request", "all rewards are equal"),
        ({"name": "alpharl", "target_reward": 0.9}, "invalid-request", "target_reward needs rewards"),
        ({"name": "soup", "selection": "greedy"}, "invalid-request", "selection='greedy' and scores"),
        ({"name": "relex", "degree": 3}, "too-few-checkpoints", "relex needs at least 4 checkpoints"),
        ({"name": "weight-extrapolation", "from_step": 11}, "missing-checkpoint", "choose one of 0, 10, 20"),
        ({"name": "weight-extrapolation", "to_step": 20}, "invalid-request", "to_step needs a from_step"),
    ],
)
def test_what_cannot_work_is_answered_at_submit(
    client: TestClient, series_id: str, method: dict[str, object], code: str, says: str
) -> None:
    found = problem(client.post("/jobs", json={"series": series_id, "method": method}), 422, code)
    assert says in found.model_dump_json()


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({"method": {"name": "relex", "degree": 2}}, "too-few-checkpoints", "needs at least 4 checkpoints"),
        (
            {"method": {"name": "weight-extrapolation", "from_step": 0}},
            "missing-checkpoint",
            "choose one of 10, 20",
        ),
        ({"task": "backtest", "at": 10, "horizon_steps": 10}, "too-few-checkpoints", "choose a later step"),
    ],
)
def test_a_configuration_tells_that_the_run_did_not_start_at_the_base(
    client: TestClient, body: dict[str, object], code: str, says: str
) -> None:
    answers = []
    for init in (True, False):
        series = client.post("/series", json={"name": "run"}).json()["id"]
        config = json.dumps({**json.loads(CONFIG), "init_lora_weights": init})
        for step in (10, 20, 30):
            folder = f"/series/{series}/checkpoints/{step}"
            assert client.put(f"{folder}/adapter_config.json", content=config).is_success
            assert client.put(f"{folder}/adapter_model.safetensors", content=model_bytes(step)).is_success
        answers.append(client.post("/jobs", json={"series": series, **body}))
    from_base, continued = answers
    assert from_base.status_code == 202
    assert says in problem(continued, 422, code).detail
