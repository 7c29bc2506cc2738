"""Both clients and the command against a real server: Redis, API and worker."""

import json
import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fixtures.adapters import write_run
from fixtures.scripted_server import MakeClient
from fixtures.server import EmbeddedServer, api_process
from safetensors.torch import load_file

from nextrapolate import (
    AuthenticationError,
    InvalidRequestError,
    JobCancelledError,
    JobCreate,
    JobState,
    NextMethod,
    NotFoundError,
    Progress,
    WaitTimeoutError,
    WeightExtrapolationMethod,
)
from nextrapolate.schemas import JobEvent

pytestmark = pytest.mark.integration

STEPS = range(10, 130, 10)
NEW_SEEDS = count(1)
"""Runs of the same seed are the same files, and so are uploaded once."""
ENDLESS = NextMethod(preset="paper", epochs=100_000)


@pytest.fixture(scope="module")
def run_of_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("client") / "grpo", STEPS)


@pytest.fixture
def client(make_client: MakeClient, embedded_server: EmbeddedServer) -> Any:
    return make_client(embedded_server.url, embedded_server.api_key)


def test_from_a_folder_to_an_adapter(client: Any, run_of_steps: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    result = client.extrapolate(
        run_of_steps,
        method="weight-extrapolation",
        until=100,
        out=tmp_path / "out",
        labels={"run": "grpo"},
        on_progress=told.append,
    )
    assert result.job.steps == list(range(10, 110, 10))
    assert result.report.target_step == 150
    assert result.report.method == WeightExtrapolationMethod()
    assert {"adapter_model.safetensors", "adapter_config.json"} < {
        path.name for path in result.path.iterdir()
    }
    last = load_file(run_of_steps / "checkpoint-100" / "adapter_model.safetensors")
    predicted = load_file(result.path / "adapter_model.safetensors")
    assert {name: tensor.shape for name, tensor in predicted.items()} == {
        name: tensor.shape for name, tensor in last.items()
    }
    assert told[0].stage == "upload"
    assert (told[-1].stage, told[-1].fraction) == ("download", 1.0)

    series = client.get_series(result.job.series)
    assert (series.name, series.labels) == ("grpo", {"run": "grpo"})
    assert [problem for checkpoint in series.checkpoints for problem in checkpoint.problems] == []
    assert series.id in [listed.id for listed in client.list_series()]
    assert result.job.id in [listed.id for listed in client.list_jobs(state=JobState.SUCCEEDED)]

    again = client.extrapolate(series, method="autoregression", out=tmp_path / "again")
    assert again.report.steps == result.report.steps

    jumped = client.record_jump(series.id, 100, result.job.id)
    assert [(jump.step, jump.job) for jump in jumped.jumps] == [(100, result.job.id)]


@pytest.mark.parametrize("refused_step", [10, 20])
def test_a_series_goes_again_whose_first_checkpoint_is_refused(
    client: Any, tmp_path: Path, refused_step: int
) -> None:
    run = write_run(tmp_path / f"refused-{tmp_path.name}", [10, 20, 30], seed=next(NEW_SEEDS))
    config = run / f"checkpoint-{refused_step}" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_bytes()) | {"lora_alpha": -1}))
    with pytest.raises(InvalidRequestError, match="lora_alpha") as refusal:
        client.extrapolate(run)
    deleted = ["(the series that was created for it has been deleted again)"] if refused_step == 10 else []
    assert refusal.value.__notes__[1:] == deleted  # the first names the file
    left = [series.name for series in client.list_series() if series.name == run.name]
    assert left == ([] if deleted else [run.name])


@pytest.fixture
def series_id(client: Any, run_of_steps: Path) -> str:
    """A series with all checkpoints of the run."""
    series = client.create_series("by hand")
    for step in STEPS:
        client.put_checkpoint(series.id, step, run_of_steps / f"checkpoint-{step}")
    return str(series.id)


def test_a_job_by_hand(client: Any, series_id: str) -> None:
    request = JobCreate(series=series_id, method=WeightExtrapolationMethod())
    job = client.submit(request, idempotency_key="by-hand-" + series_id)
    assert client.submit(request, idempotency_key="by-hand-" + series_id).id == job.id
    with pytest.raises(InvalidRequestError):
        client.submit(JobCreate(series=series_id), idempotency_key="by-hand-" + series_id)

    heard: list[JobEvent] = []
    assert client.wait(job.id, timeout=240, on_event=heard.append).state is JobState.SUCCEEDED
    assert heard[0].type == "queued"
    assert heard[-1].type == "succeeded"
    assert list(client.events(job.id)) == heard
    assert list(client.events(job.id, after=heard[1].id)) == heard[2:]
    assert list(client.events(job.id, after=heard[-1].id)) == []


def test_cancel(client: Any, series_id: str) -> None:
    job = client.submit(JobCreate(series=series_id, method=ENDLESS))
    with pytest.raises(WaitTimeoutError):
        client.wait(job.id, timeout=1.5)
    assert client.cancel(job.id).state in (JobState.CANCELLING, JobState.CANCELLED)
    with pytest.raises(JobCancelledError):
        client.wait(job.id, timeout=240)


class EnoughError(Exception):
    """Ends a wait from within."""


def test_a_wait_outlives_the_api(client: Any, embedded_server: EmbeddedServer, series_id: str) -> None:
    job = client.submit(JobCreate(series=series_id, method=ENDLESS))
    heard: list[JobEvent] = []

    def kill_once(event: JobEvent) -> None:
        heard.append(event)
        if len(heard) == 2:
            api_process(embedded_server).kill()
        if len(heard) == 5:
            raise EnoughError

    with pytest.raises(EnoughError):
        client.wait(job.id, timeout=240, on_event=kill_once)
    client.cancel(job.id)
    assert list(client.events(job.id))[:5] == heard


def test_a_second_run_over_the_same_folder_uploads_nothing(
    client: Any, embedded_server: EmbeddedServer, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", STEPS, seed=next(NEW_SEEDS))
    log = embedded_server.data_dir / "logs" / "api.log"

    def uploads() -> int:
        return log.read_text().count(" PUT /series/")

    before = uploads()
    first = client.extrapolate(run, method="weight-extrapolation", out=tmp_path / "first")
    sent = uploads() - before
    assert sent in (len(STEPS), len(STEPS) + 1)  # one configuration, which another run may have brought
    second = client.extrapolate(run, method="weight-extrapolation", out=tmp_path / "second")
    assert uploads() - before == sent
    assert second.job.series != first.job.series
    assert (
        second.job.artifacts["adapter_model.safetensors"] == first.job.artifacts["adapter_model.safetensors"]
    )


def test_files_that_the_service_has_are_named_rather_than_sent(client: Any, run_of_steps: Path) -> None:
    name, unknown = "adapter_model.safetensors", "0" * 64
    sent = client.put_file(client.create_series("first").id, 10, name, run_of_steps / "checkpoint-10" / name)
    branch = client.create_series("branch").id
    assert client.announce(branch, 10, {name: sent.sha256}) == []
    assert client.announce(branch, 20, {name: unknown}) == [name]
    there = {checkpoint.step: checkpoint.files for checkpoint in client.get_series(branch).checkpoints}
    assert there == {10: {name: sent}}


def test_weights_that_are_refused_leave_no_config_alone(
    client: Any, run_of_steps: Path, tmp_path: Path
) -> None:
    """The service has it from the checkpoint before, and would take it as soon as it is named."""
    run = tmp_path / "broken-off"
    for step in (10, 20, 30):
        shutil.copytree(run_of_steps / f"checkpoint-{step}", run / f"checkpoint-{step}")
    weights = run / "checkpoint-30" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InvalidRequestError, match="truncated"):
        client.extrapolate(run, method="weight-extrapolation")
    (left,) = client.list_series(limit=1)
    assert left.name == "broken-off"
    result = client.extrapolate(left, method="weight-extrapolation", out=tmp_path / "out")
    assert result.job.steps == [10, 20]


def test_refusals_are_typed(
    client: Any, make_client: MakeClient, embedded_server: EmbeddedServer, run_of_steps: Path
) -> None:
    with pytest.raises(AuthenticationError, match="NEXTRAPOLATE_API_KEY"):
        make_client(embedded_server.url, "nx_wrong_00000000000000000000").methods()
    with pytest.raises(NotFoundError):
        client.get_job("01JGFJJZ00ABCDEFGHJKMNPQRS")
    series = client.create_series("broken")
    weights = (run_of_steps / "checkpoint-10" / "adapter_model.safetensors").read_bytes()
    with pytest.raises(InvalidRequestError, match="truncated"):
        client.put_file(series.id, 10, "adapter_model.safetensors", weights[:-100])
    config = json.loads((run_of_steps / "checkpoint-10" / "adapter_config.json").read_text())
    dora = json.dumps(config | {"use_dora": True}).encode()
    with pytest.raises(InvalidRequestError, match="use_dora"):
        client.put_file(series.id, 10, "adapter_config.json", dora)
    with pytest.raises(InvalidRequestError, match="s3:// is off"):
        client.extrapolate("s3://bucket/checkpoint-{10..150..10}")


def test_the_command_finds_the_key(
    embedded_server: EmbeddedServer, run_of_steps: Path, tmp_path: Path
) -> None:
    command = Path(sys.executable).parent / "nextrapolate"
    options = ["--json", "--method", "weight-extrapolation", "--url", embedded_server.url]
    ended = subprocess.run(
        [command, "extrapolate", run_of_steps, *options, "--out", tmp_path / "out"],
        env={**os.environ, "XDG_CONFIG_HOME": str(embedded_server.config_home)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["job"]["state"] == "succeeded"
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
