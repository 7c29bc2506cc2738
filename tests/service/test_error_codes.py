"""One mistake has one code, whether submit finds it or a job does: programs act on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fixtures.adapters import write_run
from fixtures.dense import checkpoints
from fixtures.problems import problem
from pydantic import TypeAdapter

from nextrapolate.schemas import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    BacktestCreate,
    JobCreate,
    JobRequest,
    WeightExtrapolationMethod,
)
from nextrapolate_numerics import NumericsError, Trajectory, compare, extract
from nextrapolate_worker.methods import numerics_method


def series_of(client: TestClient, run: Path) -> str:
    """Upload a run; gives its series."""
    series: str = client.post("/series", json={"name": "run"}).json()["id"]
    for files in checkpoints(run):
        folder = f"/series/{series}/checkpoints/{files.step}"
        for name, path in ((ADAPTER_CONFIG, files.config), (ADAPTER_MODEL, files.model)):
            assert client.put(f"{folder}/{name}", content=path.read_bytes()).is_success
    return series


def code_in_a_job(body: Mapping[str, Any], run: Path) -> str:
    """The code with which the numerics refuse what submit has not."""
    request: JobRequest = TypeAdapter(JobRequest).validate_python({"series": "any", **body})
    with pytest.raises(NumericsError) as refusal:
        compute(request, run)
    return refusal.value.code


def compute(request: JobRequest, run: Path) -> None:
    """What a job does with the run, as far as a prediction."""
    trajectory = Trajectory.open(checkpoints(run))
    if isinstance(request, JobCreate):
        method, horizon_steps = numerics_method(request.method), request.method.horizon_steps
        method.fit(extract(trajectory, method, horizon_steps), horizon_steps)
    elif isinstance(request, BacktestCreate):
        methods = [numerics_method(WeightExtrapolationMethod())]
        (outcome,) = compare(trajectory, methods, at_step=request.at, horizon_steps=request.horizon_steps)
        if isinstance(outcome, NumericsError):
            raise outcome


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"method": {"name": "relex", "degree": 4}}, "too-few-checkpoints"),
        ({"method": {"name": "next", "preset": "paper", "horizon_steps": 50}}, "too-few-checkpoints"),
        ({"method": {"name": "alpharl", "rewards": [0.1, 0.2]}}, "score-count"),
        ({"method": {"name": "soup", "selection": "greedy", "scores": [0.1, 0.2]}}, "score-count"),
        ({"method": {"name": "weight-extrapolation", "from_step": 15}}, "missing-checkpoint"),
        (
            {"method": {"name": "weight-extrapolation", "from_step": 10, "to_step": 15}},
            "missing-checkpoint",
        ),
        ({"task": "backtest", "at": 15, "horizon_steps": 5}, "missing-checkpoint"),
        ({"task": "backtest", "at": 10, "horizon_steps": 30}, "missing-checkpoint"),
        ({"task": "backtest", "at": 0, "horizon_steps": 10}, "too-few-checkpoints"),
    ],
)
def test_what_the_checkpoints_will_not_do_for(
    client: TestClient, tmp_path: Path, body: dict[str, Any], code: str
) -> None:
    run = write_run(tmp_path / "run", [0, 10, 20])
    problem(client.post("/jobs", json={"series": series_of(client, run), **body}), 422, code)
    assert code_in_a_job(body, run) == code


def test_a_run_that_never_moved(client: TestClient, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0, 10, 20])
    for files in checkpoints(run)[1:]:
        files.model.write_bytes(checkpoints(run)[0].model.read_bytes())
    problem(client.post("/jobs", json={"series": series_of(client, run)}), 422, "nothing-moved")
    assert code_in_a_job({}, run) == "nothing-moved"


def test_checkpoints_of_two_runs(client: TestClient, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20])
    write_run(run, [30], rank=3)
    problem(client.post("/jobs", json={"series": series_of(client, run)}), 422, "mismatched-adapters")
    assert code_in_a_job({}, run) == "mismatched-adapters"
