import logging
import threading
import time
import weakref

import pytest
import torch

from nextrapolate_trainer.adapter import Adapter
from nextrapolate_trainer.errors import UploadError
from nextrapolate_trainer.uploads import Uploads

ADAPTER: Adapter = {"q_proj.lora_A.weight": torch.zeros(1, 1)}


def begin() -> None:
    """Nothing to be done before the first checkpoint."""


class Receiver:
    """The other end: keeps steps in the order they arrive, as soon as it is let to."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.refused: set[int] = set()
        self.called = threading.Event()
        self.open = threading.Event()

    def __call__(self, step: int, adapter: Adapter) -> None:
        self.called.set()
        assert self.open.wait(60)
        if step in self.refused:
            raise ConnectionError("nobody listens")
        self.steps.append(step)


def test_uploads_arrive_in_order_and_no_put_waits() -> None:
    receiver = Receiver()
    uploads = Uploads(receiver, begin)
    begun = time.monotonic()
    for step in (10, 20, 30):
        uploads.put(step, ADAPTER)
    assert time.monotonic() - begun < 5
    receiver.open.set()
    uploads.wait_for(30, timeout=60)
    assert receiver.steps == [10, 20, 30]
    uploads.close(timeout=1)


def test_the_oldest_waiting_checkpoint_gives_way(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    uploads = Uploads(receiver, begin, capacity=2)
    uploads.put(10, ADAPTER)
    assert receiver.called.wait(60)
    for step in (20, 30, 40, 50):
        uploads.put(step, ADAPTER)
    receiver.open.set()
    uploads.wait_for(50, timeout=60)
    assert receiver.steps == [10, 40, 50]
    assert [record.getMessage() for record in caplog.records] == [
        "uploads are slower than the run: the checkpoint of step 20 is left out",
        "uploads are slower than the run: the checkpoint of step 30 is left out",
    ]
    uploads.close(timeout=1)


def test_a_failed_upload_matters_only_where_it_is_needed(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    receiver.refused = {10}
    receiver.open.set()
    uploads = Uploads(receiver, begin)
    with caplog.at_level(logging.WARNING):
        uploads.put(10, ADAPTER)
        uploads.put(20, ADAPTER)
        uploads.wait_for(20, timeout=60)
    assert "step 10 did not reach the service: nobody listens" in caplog.text
    with pytest.raises(UploadError, match="step 10 did not reach the service: nobody listens"):
        uploads.wait_for(10, timeout=60)
    uploads.close(timeout=1)


def test_a_checkpoint_that_failed_leaves_the_memory() -> None:
    receiver = Receiver()
    receiver.refused = {10}
    receiver.open.set()
    uploads = Uploads(receiver, begin)
    tensor = torch.zeros(1, 1)
    alive = weakref.ref(tensor)
    uploads.put(10, {"q_proj.lora_A.weight": tensor})
    uploads.put(20, ADAPTER)
    uploads.wait_for(20, timeout=60)
    del tensor
    assert alive() is None
    uploads.close(timeout=1)


def test_no_put_waits_for_the_beginning() -> None:
    receiver, begun = Receiver(), threading.Event()
    receiver.open.set()

    def waits() -> None:
        assert begun.wait(60)

    uploads = Uploads(receiver, waits)
    uploads.put(10, ADAPTER)
    assert not receiver.called.is_set()
    begun.set()
    uploads.wait_for(10, timeout=60)
    assert receiver.steps == [10]


def test_a_beginning_that_fails_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise ConnectionError("nobody listens")

    receiver = Receiver()
    receiver.open.set()
    uploads = Uploads(receiver, fails)
    assert uploads.close(timeout=60)
    [said] = [record.getMessage() for record in caplog.records]
    assert said.endswith("nobody listens")
    uploads.put(10, ADAPTER)
    uploads.wait_for(10, timeout=60)


def test_the_wait_is_bounded() -> None:
    receiver = Receiver()
    uploads = Uploads(receiver, begin)
    uploads.put(10, ADAPTER)
    with pytest.raises(UploadError, match=r"still not uploaded after 0\.05 s: 1"):
        uploads.wait_for(10, timeout=0.05)
    receiver.open.set()
    uploads.close(timeout=60)
