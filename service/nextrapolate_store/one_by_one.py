"""Work on many jobs, of which one that cannot be worked on holds up no other."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from nextrapolate_store.errors import RecordUnreadable


class OneByOne:
    """Leaves a job that cannot be worked on as it is, and says so once, however often it is tried."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._said: set[str] = set()

    @contextmanager
    def job(self, job_id: str) -> Iterator[None]:
        """Work on this job; what is wrong with it alone, or with its files, is logged and goes no further."""
        try:
            yield
        except (RecordUnreadable, ValueError, OSError) as error:
            self.leave(job_id, error)
        else:
            self._said.discard(job_id)

    def leave(self, job_id: str, why: object) -> None:
        """Say why this job is left as it is, unless that has been said."""
        if job_id not in self._said:
            self._said.add(job_id)
            self._log.error("%s: %s", self._what, why, extra={"job_id": job_id})
