"""Redis, brought back from the records on disk: jobs that ended as they did, the others queued again."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from nextrapolate_store.connection import Connection
from nextrapolate_store.deployment import Deployment
from nextrapolate_store.errors import RecordUnreadable, StoreNotEmpty
from nextrapolate_store.jobs import JobStore
from nextrapolate_store.journal import Journal
from nextrapolate_store.keys import KeyStore
from nextrapolate_store.quotas import QuotaStore
from nextrapolate_store.series import SeriesStore

_T = TypeVar("_T")


@dataclass(frozen=True)
class Rebuilt:
    """What was brought back. Jobs and series that were there already are not counted."""

    keys: int
    series: int
    ended: int
    """Jobs, as they ended."""
    queued: int
    """Jobs that had not ended, as far as was written down: queued again."""
    unreadable: tuple[str, ...]
    """What is wrong with the records of those that could not be brought back."""


class Rebuild:
    """May be killed at any line, and made again: Redis counts as empty until all of it is back."""

    def __init__(
        self,
        redis: Connection,
        journal: Journal,
        deployment: Deployment,
        keys: KeyStore,
        quotas: QuotaStore,
        series: SeriesStore,
        jobs: JobStore,
    ) -> None:
        self._redis = redis
        self._journal = journal
        self._deployment = deployment
        self._keys = keys
        self._quotas = quotas
        self._series = series
        self._jobs = jobs
        self._unreadable: list[str] = []

    def run(self, *, add_missing: bool) -> Rebuilt:
        """Bring back what the records on disk tell.

        With `add_missing` it goes on where Redis has data, and leaves alone what is there.

        Raises:
            StoreNotEmpty: Redis has data, and nobody said that this is meant.
            StoreIncompatible: Redis is too old or evicts, or the data in it is of another version.
            StoreMismatched: Redis has data, and that of another folder.
        """
        self._redis.check_redis()
        if self._redis.is_marked():
            self._redis.check_schema()
            if not add_missing:
                raise StoreNotEmpty(
                    "Redis has its data, so there is nothing to rebuild; --add-missing restores what it "
                    "lacks, and leaves the rest as it is"
                )
            self._deployment.join()
        else:
            self._deployment.restore()
        for document in self._readable(self._journal.tenants(), self._journal.read_quotas):
            self._quotas.restore(document)
        histories = self._readable(self._journal.series_ids(), self._journal.read_series)
        series = sum(map(self._series.restore, histories))
        ended, queued = self._restore_jobs()
        # Last: an API that runs meanwhile lets nobody in before what his key opens is back.
        keys = self._restore_keys()
        self._redis.mark()
        return Rebuilt(keys, series, ended, queued, tuple(self._unreadable))

    def _restore_keys(self) -> int:
        found = list(self._readable(self._journal.key_names(), self._journal.read_key))
        for document, revoked_at in sorted(found, key=lambda key: key[0].created_at):
            self._keys.restore(document, revoked_at)
        return len(found)

    def _restore_jobs(self) -> tuple[int, int]:
        ended = queued = 0
        for document, end in self._readable(self._journal.job_ids(), self._journal.read_job):
            if self._jobs.restore(document, end):
                ended, queued = (ended + 1, queued) if end else (ended, queued + 1)
        return ended, queued

    def _readable(self, names: Iterable[str], read: Callable[[str], _T]) -> Iterator[_T]:
        """Read each record; note what is wrong with those that cannot be read, and go on."""
        for name in names:
            try:
                yield read(name)
            except FileNotFoundError:  # it was deleted in the meantime
                continue
            except RecordUnreadable as error:
                self._unreadable.append(str(error))
