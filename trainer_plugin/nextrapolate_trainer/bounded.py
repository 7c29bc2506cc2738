"""Waiting with an end: the service may be slow, gone, or send a byte a minute, and training goes on."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from nextrapolate_trainer.errors import JumpTimeoutError

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what `call` returns, or stop waiting for it after so many seconds.

    It runs in a thread of its own: timeouts of sockets bound each silence, but not their sum. A call that is
    given up goes on to its own end, which nobody waits for, not even the interpreter at its exit.

    Raises:
        JumpTimeoutError: it takes longer.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the one who waits
            answer.set_exception(error)

    threading.Thread(target=run, name="nextrapolate-jump", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        if answer.done():  # it has failed with such an error, or it has ended a moment ago
            return answer.result()
        raise JumpTimeoutError(f"the service has not delivered a result within {seconds:g} s") from None
