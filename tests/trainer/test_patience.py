"""How long a run waits for a service that hangs."""

import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from nextrapolate import NExtClient
from nextrapolate.schemas import WeightExtrapolationMethod
from nextrapolate_trainer import jumper
from nextrapolate_trainer.errors import TrainerPluginError
from nextrapolate_trainer.jumper import Jumper
from nextrapolate_trainer.series import Run
from nextrapolate_trainer.settings import JumpSettings


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


def test_each_jump_that_waits_in_vain_halves_the_next_ones_wait(
    silent_client: NExtClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jumper, "LEAST_PATIENCE_SECONDS", 0.2)
    run = Run("hangs", None, {"r": 2})
    waits = Jumper(silent_client, run, [WeightExtrapolationMethod()], JumpSettings(timeout=0.8))
    waited = []
    for step in (10, 20, 30, 40):
        waits.collect(step, {"lora_B": torch.ones(2, 2)})
        started = time.monotonic()
        with pytest.raises(TrainerPluginError):
            waits.jumps_from(step)
        waited.append(time.monotonic() - started)
    for seconds, most in zip(waited, (0.8, 0.4, 0.2, 0.2), strict=True):
        assert most <= seconds < most + 0.15
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said[:2] == [f"the next jump waits for the service at most {seconds} s" for seconds in (0.4, 0.2)]
