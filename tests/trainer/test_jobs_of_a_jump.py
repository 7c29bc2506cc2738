"""What a jump asks of its job, and what becomes of a job that nobody waits for any more."""

import logging
import signal
import threading
from collections.abc import Iterator

import pytest
import torch
from fixtures.scripted_job import ADAPTER, no_jump_left_waiting, script_job, submitted_to
from fixtures.scripted_server import Handler, ScriptedServer, answer, hang_up, problem
from safetensors.torch import save

from nextrapolate import NExtClient
from nextrapolate.schemas import ADAPTER_MODEL, FileInfo, JobState, WeightExtrapolationMethod
from nextrapolate_trainer.errors import RunStopsError
from nextrapolate_trainer.jumper import Jumper, JumpRequest
from nextrapolate_trainer.series import Run
from nextrapolate_trainer.settings import JumpSettings

OWN = {"lora_B": torch.ones(2, 2)}
REQUEST = JumpRequest([WeightExtrapolationMethod()])


@pytest.fixture
def jumping(service: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    """A service whose job succeeds, with an adapter that fits the run and files that no jump needs."""
    monkeypatch.setitem(ADAPTER, ADAPTER_MODEL, save(OWN))
    script_job(service, JobState.SUCCEEDED)
    return service


def test_a_jump_needs_no_file_but_the_adapter(
    jumping: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    for file in ("report", "adapter/adapter_config.json"):
        jumping.on("GET", f"/jobs/j1/{file}", problem(404, detail="gone"))
    with NExtClient(jumping.url) as client:
        jumper = Jumper(client, Run("run", None, {"r": 2}), JumpSettings(timeout=90))
        jumper.collect(10, OWN)
        [jump] = jumper.jumps_from(10, REQUEST)
        jumper.close()
    assert jump.report is None
    assert torch.equal(jump.after["lora_B"], OWN["lora_B"])
    assert "the report of job j1 cannot be read: gone" in caplog.text


def test_where_a_run_goes_is_told_once_also_where_the_service_was_away_at_first(
    jumping: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nextrapolate")
    jumping.on("POST", "/series", problem(500), *jumping.answers("POST", "/series"))
    with NExtClient(jumping.url) as client:
        jumper = Jumper(client, Run("run", None, {"r": 2}), JumpSettings(timeout=60), next_jump=20)
        for step in (10, 20):
            jumper.collect(step, OWN)
        jumper.close()
    told = [record.getMessage() for record in caplog.records if "checkpoints of this run" in record.message]
    assert told == [f"checkpoints of this run go to {jumping.url}/series/s1; the next jump is after step 20"]


@pytest.mark.parametrize("during", ["upload", "submit"])
def test_a_run_that_is_told_to_stop_leaves_no_job_that_comes_too_late(
    jumping: ScriptedServer, during: str
) -> None:
    is_stopping, has_stopped = threading.Event(), threading.Event()
    upload = ("PUT", f"/series/s1/checkpoints/10/{ADAPTER_MODEL}", answer(FileInfo(bytes=1, sha256="-"), 201))
    method, path, in_time = upload if during == "upload" else ("POST", "/jobs", submitted_to(jumping))

    def late(handler: Handler) -> None:
        is_stopping.set()
        has_stopped.wait(60)
        in_time(handler)

    jumping.on(method, path, late)
    with NExtClient(jumping.url) as client:
        jumper = Jumper(client, Run("run", None, {"r": 2}), JumpSettings(timeout=60))
        jumper.collect(10, OWN)
        with no_jump_left_waiting():
            with pytest.raises(RunStopsError):
                jumper.jumps_from(10, REQUEST, is_stopping.is_set)
            has_stopped.set()
        jumper.close()
    asked = [each.path for each in jumping.received]
    assert asked.count("/jobs") == asked.count("/jobs/j1/cancel") == (during == "submit")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Has SIGINT interrupt, as in a program of its own: the shells of some have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_run_that_is_interrupted_while_it_waits_leaves_no_job_behind(jumping: ScriptedServer) -> None:
    over = threading.Event()

    def never_done(handler: Handler) -> None:
        signal.raise_signal(signal.SIGINT)  # Ctrl-C
        over.wait(60)
        hang_up(handler)

    jumping.on("GET", "/jobs/j1/events", never_done)
    with NExtClient(jumping.url) as client:
        jumper = Jumper(client, Run("run", None, {"r": 2}), JumpSettings(timeout=60))
        jumper.collect(10, OWN)
        with no_jump_left_waiting():
            with pytest.raises(KeyboardInterrupt):
                jumper.jumps_from(10, REQUEST)
            asked = [each.path for each in jumping.received]
            script_job(jumping, JobState.CANCELLED)
            over.set()
        jumper.close()
    assert asked.count("/jobs/j1/cancel") == 1
