import threading
import time
from concurrent.futures import Future

import pytest

from nextrapolate_trainer.bounded import within
from nextrapolate_trainer.errors import JumpTimeoutError


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


def test_what_hangs_is_left_behind() -> None:
    never = threading.Event()
    begun = time.monotonic()
    with pytest.raises(JumpTimeoutError, match=r"not delivered a result within 0\.05 s"):
        within(0.05, lambda: never.wait(30))
    assert time.monotonic() - begun < 20
    never.set()
