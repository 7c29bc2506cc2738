"""The ends of jobs, written down: after a script has ended a job, some process does this, and then again.

A script cannot write a file. It leaves the job in the set of those whose end is not on disk yet, and only
what is flushed to disk is taken out of it.

Where another end is on disk already, Redis had lost it: a replica took over that did not know of it, and the
job ran once more. The end that came first may have been told, so it stays, and Redis follows.
"""

import logging
from datetime import datetime
from functools import partial
from typing import cast

from nextrapolate.schemas import JobEvent, JobState
from nextrapolate_store.blobs import Blobs
from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.decoding import job_record
from nextrapolate_store.documents import EndDocument
from nextrapolate_store.job_folders import JobFolders
from nextrapolate_store.jobs import JobStore
from nextrapolate_store.journal import Journal
from nextrapolate_store.one_by_one import OneByOne
from nextrapolate_store.quotas import QuotaStore
from nextrapolate_store.records import JobRecord

_log = logging.getLogger(__name__)

_JOBS_A_PASS = 1000


class Recorder:
    """Any number of processes may record at any time, and be killed at any line of it."""

    def __init__(
        self,
        redis: Connection,
        jobs: JobStore,
        journal: Journal,
        quotas: QuotaStore,
        blobs: Blobs,
        job_folders: JobFolders,
    ) -> None:
        self._redis = redis
        self._quotas = quotas
        self._jobs = jobs
        self._journal = journal
        self._blobs = blobs
        self._job_folders = job_folders
        self._one_by_one = OneByOne(_log, "how it ended is in Redis alone")

    def record_ends(self) -> int:
        """Write down how jobs ended, and clear away what their lost attempts made; gives how many.

        One whose end cannot be written down, as where a record cannot be read, is logged once, tried again
        at each pass, and holds up no other.

        Raises:
            StoreMismatched: the data folder is not the one of this Redis.
        """
        count = 0
        for job_id in cast(list[str], self._redis.srandmember(RedisKey.UNRECORDED, _JOBS_A_PASS)):
            with self._one_by_one.job(job_id):
                self._record(job_id)
                self._redis.srem(RedisKey.UNRECORDED, job_id)
                count += 1
        return count

    def _record(self, job_id: str) -> None:
        fields = self._redis.fields(RedisKey.JOB + job_id)
        if not fields:  # swept in the meantime
            return
        job = job_record(fields)
        written = self._journal.write_end(EndDocument(job=job, events=self._story(job_id))).job
        if _end(written) != _end(job):
            _log.warning("ended as it had before Redis lost that", extra={"job_id": job_id})
            self._jobs.restore(*self._journal.read_job(job_id))
        if int(fields.get("coming_bytes", 0)):
            self._quotas.count_fetched(job.tenant, job_id, partial(self._blobs.stored, job.tenant))
        self._job_folders.keep_only_result(written)

    def _story(self, job_id: str) -> tuple[JobEvent, ...]:
        story: list[JobEvent] = []
        after = None
        while events := self._jobs.events(job_id, after):
            story += [event for event in events if event.type != "progress"]
            after = events[-1].id
        return tuple(story)


def _end(job: JobRecord) -> tuple[JobState, int, datetime | None]:
    """What tells one end of a job from another; the delivery of its webhook does not."""
    return job.state, job.fence, job.finished_at
