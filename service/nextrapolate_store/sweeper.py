"""The sweeper: removes what nobody needs any more, from Redis first and from the disk after it.

What can be seen through Redis is whole at every moment: a job goes with all its indexes in one script, and
its folder after it. What a killed sweep leaves behind nobody can see, and the next one removes it.

The records on disk say which blobs are needed, and when a job ended: where Redis has lost its data, nothing
is taken for garbage because of it. Nor is anything where another deployment's folder is in the place of ours:
our Redis knows none of its jobs. Where Redis' clock has gone far ahead since the last sweep it may be wrong,
so sweeps follow it slowly.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import cast

from nextrapolate_store.blobs import Blobs
from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.decoding import timestamp_ms, when
from nextrapolate_store.deployment import Deployment
from nextrapolate_store.errors import RecordUnreadable, StoreUnavailable
from nextrapolate_store.files import remove_abandoned
from nextrapolate_store.ids import made_at
from nextrapolate_store.job_folders import JobFolders
from nextrapolate_store.journal import Journal
from nextrapolate_store.quotas import QuotaStore
from nextrapolate_store.remote.fetching import Fetcher
from nextrapolate_store.retention import milliseconds
from nextrapolate_store.settings import StoreSettings

_log = logging.getLogger(__name__)

_BATCH = 200
"""How many jobs one script removes: Redis serves nobody else meanwhile."""
_FOLLOWS = 12
"""By how many times their pause sweeps follow a clock that has gone ahead: results of yesterday outlive one
that is a year ahead by more than two days, a weekend."""
_SUSPECT = timedelta(days=1)
"""How far a clock has to be ahead of the sweep to be reported; a night without an API is no reason."""


@dataclass(frozen=True)
class Swept:
    """How much one sweep has removed."""

    jobs: int
    events: int
    """Jobs whose events are gone."""
    idempotency_keys: int
    orphans: int
    """Folders of jobs that Redis does not know."""
    series: int
    """Folders of series whose creation was killed before there was a record."""
    temporary_files: int
    blobs: int


class Sweeper:
    """Any process may sweep at any time, and be killed at any line of it."""

    def __init__(
        self,
        redis: Connection,
        deployment: Deployment,
        journal: Journal,
        quotas: QuotaStore,
        blobs: Blobs,
        job_folders: JobFolders,
        settings: StoreSettings,
    ) -> None:
        self._redis = redis
        self._deployment = deployment
        self._journal = journal
        self._quotas = quotas
        self._blobs = blobs
        self._job_folders = job_folders
        self._data_dir, self._retention = settings.data_dir, settings.retention
        self._sweep = redis.load("sweep")
        self._unmarked_until = 0.0

    def sweep_if_due(self) -> Swept | None:
        """Sweep, unless this or another process has done so lately.

        A Redis that is full refuses the mark of that, and what frees memory must not wait for some: each
        process then sweeps on its own, as often.
        """
        every, now = self._retention.sweep_every, time.monotonic()
        try:
            due = self._redis.set(RedisKey.SWEPT, 1, nx=True, px=milliseconds(every))
        except StoreUnavailable:
            due = now >= self._unmarked_until and not self._redis.exists(RedisKey.SWEPT)
            if due:
                self._unmarked_until = now + every.total_seconds()
        return self.sweep() if due else None

    def sweep(self) -> Swept:
        """Remove what is older than it is kept.

        Raises:
            StoreLost: Redis has lost its data.
            StoreMismatched: the data folder is not the one of this Redis, or is not any more.
        """
        self._redis.check_schema()
        self._deployment.check()
        self._job_folders.finish_discarding()
        self._journal.finish_discarding()
        now = when(self._redis.now_ms())
        until = self._until(now)
        uploads = (self._retention.uploads + (now - until)).total_seconds()
        jobs, events, idempotency_keys = self._sweep_redis(until)
        swept = Swept(
            jobs=jobs,
            events=events,
            idempotency_keys=idempotency_keys,
            orphans=self._remove_orphans(until),
            series=self._remove_unfinished_series(uploads),
            temporary_files=remove_abandoned(self._data_dir, uploads),
            blobs=self._remove_unused_blobs(uploads),
        )
        for tenant in self._blobs.tenants():
            self._quotas.recount(tenant, partial(self._blobs.stored, tenant))
            Fetcher(self._data_dir, tenant, hub_token=None).forget_swept()
        return swept

    def _until(self, now: datetime) -> datetime:
        """The time by which this sweep goes: Redis', but not too far ahead of that of the last one."""
        last = cast(str | None, self._redis.get(RedisKey.SWEPT_UNTIL))
        until = now if last is None else min(now, when(last) + _FOLLOWS * self._retention.sweep_every)
        if now - until > _SUSPECT:
            _log.error(
                "Redis' clock says %s, but this sweep uses %s, because no sweep ran for a long time "
                "before: correct Redis' clock if it is wrong; later sweeps follow it slowly",
                *(f"{time:%Y-%m-%d %H:%M}" for time in (now, until)),
            )
        try:
            self._redis.set(RedisKey.SWEPT_UNTIL, timestamp_ms(until))
        except StoreUnavailable:  # where its memory is full, a sweep is what frees some
            return now
        return until

    def _sweep_redis(self, until: datetime) -> tuple[int, int, int]:
        totals = (0, 0, 0)
        ages = [milliseconds(self._retention.jobs), milliseconds(self._retention.events)]
        while True:
            gone, events, keys = self._sweep(args=[*ages, _BATCH, timestamp_ms(until)])
            for job_id in gone:
                self._job_folders.discard(job_id)
            totals = (totals[0] + len(gone), totals[1] + events, totals[2] + keys)
            if max(len(gone), events, keys) < _BATCH:
                return totals

    def _remove_orphans(self, until: datetime) -> int:
        """Remove old folders of jobs that were never acknowledged, or whose sweep was killed half-way."""
        count = 0
        for job_id in self._jobs_from_before(until - self._retention.jobs):
            if not self._redis.exists(RedisKey.JOB + job_id):
                self._deployment.check()
                self._job_folders.discard(job_id)
                count += 1
        return count

    def _remove_unfinished_series(self, older_than_seconds: float) -> int:
        """Remove old folders that `SeriesStore.create` made and was killed before it wrote into them."""
        found = self._journal.unfinished_series(older_than_seconds)
        # One that Redis knows has lost its record since: it is the operator's to bring back.
        unfinished = [series_id for series_id in found if not self._redis.exists(RedisKey.SERIES + series_id)]
        for series_id in unfinished:
            self._journal.discard_series(series_id)
        return len(unfinished)

    def _jobs_from_before(self, limit: datetime) -> Iterator[str]:
        for job_id in takewhile(lambda job_id: made_at(job_id) <= limit, self._job_folders.ids()):
            try:
                end = self._journal.read_end(job_id)
            except RecordUnreadable as error:
                _log.error("not swept: %s", error)
                continue
            if end is None or end.job.finished_at is None or end.job.finished_at <= limit:
                yield job_id

    def _remove_unused_blobs(self, older_than_seconds: float) -> int:
        """Remove old blobs that nobody needs; records are read until all old ones are known to be needed.

        Those of series come first. In most deployments they account for all old blobs, and none of the jobs'
        has to be read, which are many and long.
        """
        unused, needs = self._blobs.old(older_than_seconds), self._journal.blobs_in_use()
        try:
            while unused and (need := next(needs, None)) is not None:
                tenant, digests = need
                if tenant in unused:
                    unused[tenant] -= digests
                    if not unused[tenant]:
                        del unused[tenant]
        except RecordUnreadable as error:
            _log.error("no blobs are swept, because it is not known which are in use: %s", error)
            return 0
        self._deployment.check()  # reading all records takes a while
        return self._blobs.remove_unused(unused, older_than_seconds)
