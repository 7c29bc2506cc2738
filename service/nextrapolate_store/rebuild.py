"""Redis, brought back from the records on disk: jobs that ended as they did, the others queued again."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from nextrapolate_store.connection import Connection
from nextrapolate_store.errors import RecordUnreadable, StoreNotEmpty
from nextrapolate_store.jobs import JobStore
from nextrapolate_store.journal import Journal
from nextrapolate_store.series import SeriesStore

_T = TypeVar("_T")


@dataclass(frozen=True)
class Rebuilt:
    """What was brought back. What was there already is not counted."""

    series: int
    ended: int
    """Jobs, as they ended."""
    queued: int
    """Jobs that had not ended, as far as was written down: queued again."""
    unreadable: tuple[str, ...]
    """What is wrong with the records of those that could not be brought back."""


def rebuild(
    redis: Connection, journal: Journal, jobs: JobStore, series: SeriesStore, *, add_missing: bool
) -> Rebuilt:
    """Bring back what the records on disk tell.

    May be killed at any line, and made again: Redis counts as empty until all of it is back.

    With `add_missing` it goes on where Redis has data, and leaves alone what is there.

    Raises:
        StoreNotEmpty: Redis has data, and nobody said that this is meant.
        StoreIncompatible: Redis, or the data in it, is of another version.
    """
    redis.check_version()
    if redis.is_marked():
        redis.check_schema()
        if not add_missing:
            raise StoreNotEmpty(
                "Redis has its data, there is nothing to rebuild; --add-missing brings back what it lacks, "
                "as after an older backup of it was restored"
            )
    unreadable: list[str] = []
    histories = _readable(journal.series_ids(), journal.read_series, unreadable)
    restored_series = sum(map(series.restore, histories))
    ended = queued = 0
    for document, end in _readable(journal.job_ids(), journal.read_job, unreadable):
        restored = jobs.restore(document, end)
        ended, queued = ended + (restored and end is not None), queued + (restored and end is None)
    redis.mark()
    return Rebuilt(restored_series, ended, queued, tuple(unreadable))


def _readable(ids: Iterable[str], read: Callable[[str], _T], unreadable: list[str]) -> Iterator[_T]:
    """Read each record; note what is wrong with those that cannot be read, and go on."""
    for one in ids:
        try:
            yield read(one)
        except RecordUnreadable as error:
            unreadable.append(str(error))
