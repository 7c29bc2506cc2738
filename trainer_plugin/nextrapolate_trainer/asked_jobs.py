"""The jobs of one jump, which are cancelled where nobody waits for them any more."""

import threading
from collections.abc import Callable

from nextrapolate_trainer.errors import RunStopsError


class AskedJobs:
    """Noted by the thread that submits them, and withdrawn by the one that has waited.

    Args:
        cancel: takes the id of a job for which nobody will come.
    """

    def __init__(self, cancel: Callable[[str], None]) -> None:
        self._cancel = cancel
        self._ids: list[str] = []
        self._withdrawn = False
        self._lock = threading.Lock()

    def check(self) -> None:
        """Before a job is submitted: see that somebody will come for it.

        Raises:
            RunStopsError: nobody will.
        """
        if self._withdrawn:
            raise RunStopsError("the run waits for no jump any more")

    def add(self, job: str) -> None:
        """Note a job; one that comes too late is cancelled.

        Raises:
            RunStopsError: it does.
        """
        with self._lock:
            self._ids.append(job)
            is_late = self._withdrawn
        if is_late:
            self._cancel(job)
        self.check()

    def withdraw(self) -> None:
        """Cancel the jobs, also those that are just submitted: resumed, the run would wait behind them."""
        with self._lock:
            self._withdrawn = True
            ids = tuple(self._ids)
        for job in ids:
            self._cancel(job)
