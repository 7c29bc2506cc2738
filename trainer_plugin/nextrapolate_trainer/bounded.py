"""Waiting with an end: the service may be slow, gone, or send a byte a minute, and training goes on."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from nextrapolate_trainer.errors import JumpTimeoutError, RunStopsError

T = TypeVar("T")

_ASKS_EVERY = 0.5
"""Seconds."""
_STOPS = "the run has been asked to stop, and does not wait for the service"


def within(seconds: float, call: Callable[[], T], is_stopping: Callable[[], bool] = lambda: False) -> T:
    """Return what `call` returns, or stop waiting for it after so many seconds, or where the run is to stop.

    It runs in a thread of its own: timeouts of sockets bound each silence, but not their sum. A call that is
    given up goes on to its own end, which nobody waits for, not even the interpreter at its exit.

    Args:
        seconds: to wait at most.
        call: what is waited for; it is not begun where the run is to stop.
        is_stopping: tells whether it is; asked again and again.

    Raises:
        JumpTimeoutError: it takes longer.
        RunStopsError: the run is to stop first.
    """
    ends = time.monotonic() + seconds
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the one who waits
            answer.set_exception(error)

    if is_stopping():
        raise RunStopsError(_STOPS)
    threading.Thread(target=run, name="nextrapolate-jump", daemon=True).start()
    while True:
        left = ends - time.monotonic()
        try:
            return answer.result(max(0.0, min(left, _ASKS_EVERY)))
        except TimeoutError:
            if answer.done():  # it has failed with such an error, or it has ended a moment ago
                return answer.result()
            if is_stopping():
                raise RunStopsError(_STOPS) from None
            if left <= _ASKS_EVERY:
                raise JumpTimeoutError(
                    f"the service has not delivered a result within {seconds:g} s"
                ) from None
