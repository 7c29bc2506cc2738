"""The lease of one attempt: kept alive by beats, judged by the local monotonic clock, settled once."""

import logging
import time
from collections.abc import Callable

from nextrapolate.schemas import JobError
from nextrapolate_store.errors import StoreUnavailable
from nextrapolate_store.jobs import JobStore
from nextrapolate_store.records import Beat, Claim
from nextrapolate_worker.messages import Done, Failed, Progress

_log = logging.getLogger(__name__)

_PROGRESS_SECONDS = 1.0
"""News of progress is passed on at most this often: every beat costs Redis a flush to disk."""

LOST = "lost the lease"
"""How an attempt ends that this worker can settle no more: the job is another's by now."""


class Stopped:
    """How an attempt ended whose worker was asked to stop: somebody else has to do it."""


class Lease:
    """An attempt's right to commit.

    Redis decides who holds the lease; the local clock only says when this worker can no longer be sure of it.
    It runs from before each beat is sent, so it always ends before Redis' own.
    """

    def __init__(self, jobs: JobStore, claim: Claim, seconds: float) -> None:
        self._jobs = jobs
        self._job_id = claim.job.id
        self._fence = claim.fence
        self._seconds = seconds
        self._beaten = time.monotonic()
        self._tried = self._beaten
        self._told: Progress | None = None

    @property
    def is_over(self) -> bool:
        """True once this worker may have lost the job."""
        return time.monotonic() >= self._beaten + self._seconds

    def keep(self, progress: Progress | None) -> Beat:
        """Beat where it is time to or there is news; Redis may be away for as long as the lease lasts."""
        now = time.monotonic()
        patience = _PROGRESS_SECONDS if progress != self._told else self._seconds / 3
        if now < self._tried + patience:
            return Beat.HELD
        if self.is_over:
            return Beat.LOST
        self._tried = now
        try:
            beat = self._jobs.beat(
                self._job_id,
                self._fence,
                stage=progress.stage if progress else None,
                progress=progress.fraction if progress else None,
            )
        except StoreUnavailable as error:
            _log.warning("a beat did not get through: %s", error)
            return Beat.HELD
        self._beaten, self._told = now, progress
        return beat

    def settle(self, outcome: Done | Failed | Beat | Stopped) -> str:
        """Tell the store how the attempt ended; gives the ending in words."""
        match outcome:
            case Done() as done:
                return self._say("committed", lambda: self._commit(done))
            case Failed(error=error, final=True):
                return self._say("failed", lambda: self._jobs.fail(self._job_id, self._fence, error))
            case Failed(error=error, machine=True):
                return self._say("given back", lambda: self._release(error.detail))
            case Failed(error=error):
                return self._say("gave up", lambda: self._give_up(error))
            case Beat.CANCEL:
                return self._say("cancelled", lambda: self._jobs.confirm_cancelled(self._job_id, self._fence))
            case Stopped():
                return self._say("given back", lambda: self._release("its worker was stopped"))
            case _:
                return LOST

    def _commit(self, done: Done) -> bool:
        committed = self._jobs.commit(self._job_id, self._fence, done.artifacts, done.stage_seconds)
        if not committed:  # where a cancel came first, it ends as that; for an old fence nothing changes
            self._jobs.confirm_cancelled(self._job_id, self._fence)
        return committed

    def _give_up(self, error: JobError) -> bool:
        self._jobs.give_up(self._job_id, self._fence, error)
        return True

    def _release(self, why: str) -> bool:
        self._jobs.release(self._job_id, self._fence, why)
        return True

    def _say(self, ending: str, transition: Callable[[], bool]) -> str:
        while not self.is_over:
            try:
                return ending if transition() else f"refused: was not {ending}"
            except StoreUnavailable as error:
                _log.warning("not settled yet, trying again: %s", error)
                time.sleep(_PROGRESS_SECONDS)
        return LOST
