"""Posts checkpoints from a background thread, so that a training step never waits for the network."""

import logging
import threading
from collections import deque
from collections.abc import Callable

from nextrapolate_trainer.adapter import Adapter
from nextrapolate_trainer.errors import RunRefusedError, UploadError

logger = logging.getLogger("nextrapolate")


class Uploads:
    """A bounded queue of checkpoints and the one thread that calls `begin`, then posts them, in order.

    Where more than `capacity` wait, the oldest of them is given up: memory stays bounded, no step waits, and
    the newest checkpoints are the ones a jump needs most. The thread lives while there is something to post,
    so that an interrupted run leaves none behind, and it is a daemon: a program that has trained to its
    end does not stay for a server that hangs.
    """

    def __init__(
        self, post: Callable[[int, Adapter], None], begin: Callable[[], None], capacity: int = 4
    ) -> None:
        self._post = post
        self._capacity = capacity
        self._waiting: deque[tuple[int, Adapter]] = deque()
        self._failures: dict[int, str] = {}
        self._refusal: RunRefusedError | None = None
        self._changed = threading.Condition()
        self._start(begin)

    def check(self) -> None:
        """See that checkpoints are taken at all.

        Raises:
            RunRefusedError: none ever will be.
        """
        if self._refusal:
            raise self._refusal

    def put(self, step: int, adapter: Adapter) -> None:
        """Queue the checkpoint of `step`; returns at once."""
        with self._changed:
            if self._refusal:
                return
            if len(self._waiting) >= self._capacity:
                oldest, _ = self._waiting.popleft()
                self._failures[oldest] = f"the checkpoint of step {oldest} was left out"
                logger.warning(
                    "uploads are slower than the run: the checkpoint of step %d is left out", oldest
                )
            self._waiting.append((step, adapter))
            if not self._posting:
                self._start()

    def wait_for(self, step: int, timeout: float) -> None:
        """Wait until all uploads are through, at most `timeout` seconds.

        Raises:
            UploadError: they take longer, or the checkpoint of `step` itself is not there.
            RunRefusedError: none of them ever will be.
        """
        if not self._idle(timeout):
            late = len(self._waiting) + self._posting
            raise UploadError(f"checkpoints still not uploaded after {timeout:g} s: {late}")
        self.check()
        if reason := self._failures.get(step):
            raise UploadError(reason)

    def close(self, timeout: float) -> bool:
        """Give what is on its way `timeout` seconds, then give up the rest; returns whether none was left."""
        idle = self._idle(timeout)
        with self._changed:
            self._waiting.clear()
        return idle

    def _idle(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._posting, timeout)

    def _start(self, begin: Callable[[], None] | None = None) -> None:
        self._posting = True
        threading.Thread(target=self._work, args=(begin,), name="nextrapolate-uploads", daemon=True).start()

    def _work(self, begin: Callable[[], None] | None) -> None:
        if begin:
            self._begin_or_log(begin)
        while checkpoint := self._next():
            self._post_or_log(*checkpoint)

    def _next(self) -> tuple[int, Adapter] | None:
        with self._changed:
            if self._waiting:
                return self._waiting.popleft()
            self._posting = False
            self._changed.notify_all()
            return None

    def _begin_or_log(self, begin: Callable[[], None]) -> None:
        try:
            begin()
        except RunRefusedError as error:
            self._refuse(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the first checkpoint tries again
            logger.warning("for now, no checkpoint of this run can be posted and no jump made: %s", error)

    def _refuse(self, error: RunRefusedError) -> None:
        logger.error("nextrapolate takes no further part in this run: %s", error)
        with self._changed:
            self._refusal = error
            self._waiting.clear()

    def _post_or_log(self, step: int, adapter: Adapter) -> None:
        try:
            self._post(step, adapter)
        except RunRefusedError as error:
            self._refuse(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs one checkpoint
            self._failures[step] = f"the checkpoint of step {step} did not reach the service: {error}"
            logger.warning("%s", self._failures[step])
