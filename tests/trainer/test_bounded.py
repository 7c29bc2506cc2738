import threading
import time
from concurrent.futures import Future

import pytest

from nextrapolate_trainer.bounded import within
from nextrapolate_trainer.errors import JumpTimeoutError, RunStopsError


def test_what_comes_in_time_is_returned() -> None:
    assert within(10, lambda: "adapter") == "adapter"


def test_what_fails_fails_here() -> None:
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 / 0)
    with pytest.raises(TimeoutError, match="of the call itself"):
        within(10, lambda: (_ for _ in ()).throw(TimeoutError("of the call itself")))


def test_what_comes_as_the_wait_ends_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Future[str]):
        def result(self, timeout: float | None = None) -> str:
            found = super().result()
            if timeout is not None:
                raise TimeoutError
            return found

    monkeypatch.setattr("nextrapolate_trainer.bounded.Future", Late)
    assert within(10, lambda: "adapter") == "adapter"


def test_a_run_that_is_to_stop_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextrapolate_trainer.bounded._ASKS_EVERY", 0.01)
    never, asked = threading.Event(), iter([False, False, True])
    with pytest.raises(RunStopsError, match="asked to stop"):
        within(30, lambda: never.wait(30), lambda: next(asked))
    never.set()


def test_a_run_that_is_to_stop_begins_nothing() -> None:
    with pytest.raises(RunStopsError):
        within(30, lambda: pytest.fail("it was begun"), lambda: True)


def test_what_hangs_is_left_behind() -> None:
    never = threading.Event()
    begun = time.monotonic()
    with pytest.raises(JumpTimeoutError, match=r"not delivered a result within 0\.05 s"):
        within(0.05, lambda: never.wait(30))
    assert time.monotonic() - begun < 20
    never.set()
