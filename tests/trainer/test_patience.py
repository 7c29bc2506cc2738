"""How long a run waits for a service that hangs, and for one that has hung."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch
from fixtures.client_examples import an_event
from fixtures.scripted_job import ADAPTER, script_job, script_series
from fixtures.scripted_server import Answer, Handler, ScriptedServer, answer, stream
from safetensors.torch import save

from nextrapolate import NExtClient
from nextrapolate.errors import NextrapolateError
from nextrapolate.schemas import ADAPTER_MODEL, FileInfo, JobState, WeightExtrapolationMethod
from nextrapolate_trainer import jumper
from nextrapolate_trainer.errors import TrainerPluginError
from nextrapolate_trainer.jumper import Jumper, JumpRequest
from nextrapolate_trainer.series import Run
from nextrapolate_trainer.settings import JumpSettings

RUN = Run("hangs", None, {"r": 2})
REQUEST = JumpRequest([WeightExtrapolationMethod()])
OWN = {"lora_B": torch.ones(2, 2)}


@pytest.fixture
def silent_client() -> Iterator[NExtClient]:
    """A client of a server that takes connections, and says nothing."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        NExtClient(f"http://127.0.0.1:{listener.getsockname()[1]}", "nx_none_none") as client,
    ):
        yield client
    for thread in threading.enumerate():  # what they still have to say is no other test's
        if thread.name.startswith("nextrapolate-"):
            thread.join(60)


def test_each_jump_to_which_nothing_is_answered_halves_the_next_ones_wait(
    silent_client: NExtClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jumper, "LEAST_PATIENCE_SECONDS", 0.2)
    waits = Jumper(silent_client, RUN, JumpSettings(timeout=0.8))
    waited = []
    for step in (10, 20, 30, 40):
        waits.collect(step, OWN)
        started = time.monotonic()
        with pytest.raises(TrainerPluginError):
            waits.jumps_from(step, REQUEST)
        waited.append(time.monotonic() - started)
    assert all(seconds >= most for seconds, most in zip(waited, (0.8, 0.4, 0.2, 0.2), strict=True))
    assert waited[0] > waited[1] > waited[2]
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said[:2] == [
        f"the service does not answer: until it does, a jump waits at most {seconds} s"
        for seconds in (0.4, 0.2)
    ]


def held(event: threading.Event, then: Answer) -> Answer:
    """The same answer, once the event has come."""

    def send(handler: Handler) -> None:
        event.wait(30)
        then(handler)

    return send


def lasting(seconds: float) -> Answer:
    """The events of a job that takes so long."""

    def send(handler: Handler) -> None:
        time.sleep(seconds)
        stream(an_event(1, JobState.SUCCEEDED))(handler)

    return send


def test_a_service_that_is_back_is_waited_for_as_long_as_its_jobs_take(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jumper, "LEAST_PATIENCE_SECONDS", 0.1)
    monkeypatch.setitem(ADAPTER, ADAPTER_MODEL, save(OWN))
    script_series(scripted, 10, 20, 30)
    script_job(scripted, JobState.SUCCEEDED)
    back = threading.Event()
    taken = answer(FileInfo(bytes=1, sha256="-"), 201)
    scripted.on("PUT", f"/series/s1/checkpoints/10/{ADAPTER_MODEL}", held(back, taken))
    scripted.on("GET", "/jobs/j1/events", lasting(0.45))
    with NExtClient(scripted.url) as client:
        waits = Jumper(client, RUN, JumpSettings(timeout=0.8))
        waits.collect(10, OWN)
        with pytest.raises(TrainerPluginError):
            waits.jumps_from(10, REQUEST)  # from here on .4 s, and a job takes longer
        back.set()
        waits.collect(20, OWN)
        with suppress(TrainerPluginError, NextrapolateError):  # unless it began with the wait halved
            waits.jumps_from(20, REQUEST)
        waits.collect(30, OWN)
        [jump] = waits.jumps_from(30, REQUEST)
        waits.close()
    assert jump.step == 30


def test_a_job_that_was_taken_is_waited_for_as_long_as_told_each_time(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jumper, "LEAST_PATIENCE_SECONDS", 0.05)
    script_series(scripted, 10, 20)
    script_job(scripted, JobState.SUCCEEDED)
    over = threading.Event()
    scripted.on("GET", "/jobs/j1/events", held(over, lasting(0)))
    with NExtClient(scripted.url) as client:
        waits = Jumper(client, RUN, JumpSettings(timeout=0.3))
        for step in (10, 20):
            waits.collect(step, OWN)
            started = time.monotonic()
            with pytest.raises((TrainerPluginError, NextrapolateError)):
                waits.jumps_from(step, REQUEST)
            assert time.monotonic() - started >= 0.25
        waits.close()
        over.set()
