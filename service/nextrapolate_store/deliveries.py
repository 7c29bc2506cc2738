"""Webhooks of jobs that have ended: which are due, and what came of each attempt."""

import logging
import secrets
from dataclasses import replace
from datetime import datetime, timedelta

from nextrapolate.schemas import Delivery
from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.decoding import job_record, timestamp_ms, when
from nextrapolate_store.deployment import Deployment
from nextrapolate_store.documents import WebhookDocument
from nextrapolate_store.errors import RecordUnreadable
from nextrapolate_store.journal import Journal
from nextrapolate_store.records import DueDelivery, JobRecord

_HOLD_SECONDS = 60.0
"""How long a process may take over an attempt before another one makes it."""
_OF_ONE_TENANT = 4
"""How many of a tenant's are delivered at a time: receivers that never answer hold up no other tenant's."""
_LOOKED_AT = 1000
"""Bounds what one claim costs Redis where thousands of one tenant are due."""
_PUT_OFF_SECONDS, _MOST_ATTEMPTS_UNREAD = 600.0, 8
"""How long a webhook waits whose job cannot be read here, and how often: an upgrade may be under way."""
_DELIVERED_WITHIN = timedelta(days=1)
"""How long after a job's end a rebuild still has its webhook delivered; all attempts together take less."""

_log = logging.getLogger(__name__)


class DeliveryStore:
    """The webhooks of all tenants. All methods raise `StoreUnavailable` where Redis does not answer."""

    def __init__(self, redis: Connection, journal: Journal, deployment: Deployment) -> None:
        self._redis = redis
        self._deployment = deployment
        self._journal = journal
        self._claim, self._settle = redis.load("claim_deliveries"), redis.load("settle_delivery")

    def claim(self, limit: int, *, hold_seconds: float = _HOLD_SECONDS) -> list[DueDelivery]:
        """Take up to so many that are due; nobody else gets them until the hold is over.

        No more than four of one tenant are taken at a time, over all processes; the others wait.

        Raises:
            StoreMismatched: the data folder, in which the secrets lie, is not the one of this Redis.
        """
        self._deployment.check()
        hold_ms, token = round(hold_seconds * 1000), secrets.token_hex(8)
        taken = self._claim(args=[limit, hold_ms, _OF_ONE_TENANT, _LOOKED_AT, token])
        due: list[DueDelivery] = []
        for job_id, attempt in taken:
            fields = self._redis.fields(RedisKey.JOB + job_id)
            try:
                due += [DueDelivery(job_record(fields), attempt)] if "id" in fields else []
            except RecordUnreadable as error:
                self._put_off(job_id, attempt, error)
        return due

    def _put_off(self, job_id: str, attempt: int, error: RecordUnreadable) -> None:
        """Leave one to a process of the version that can read it, if there is any; give it up in the end."""
        _log.error("its webhook is not sent: %s", error, extra={"job_id": job_id, "attempt": attempt})
        wait_seconds = _PUT_OFF_SECONDS if attempt < _MOST_ATTEMPTS_UNREAD else None
        self._note(job_id, attempt, (), status=None, error=str(error), wait_seconds=wait_seconds)

    def settle(
        self, due: DueDelivery, *, status: int | None, error: str | None, wait_seconds: float | None
    ) -> bool:
        """Note what came of an attempt; False, and nothing is noted, where it is somebody else's by now.

        Args:
            due: the attempt.
            status: of the answer, if there was one.
            error: why the webhook does not count as delivered.
            wait_seconds: until the next attempt; None where there will be none.
        """
        job = due.job
        return self._note(
            job.id, due.attempt, job.deliveries, status=status, error=error, wait_seconds=wait_seconds
        )

    def _note(
        self,
        job_id: str,
        attempt: int,
        before: tuple[Delivery, ...],
        *,
        status: int | None,
        error: str | None,
        wait_seconds: float | None,
    ) -> bool:
        now_ms = self._redis.now_ms()
        next_at = None if wait_seconds is None else when(now_ms + round(wait_seconds * 1000))
        record = Delivery(attempt=attempt, at=when(now_ms), status=status, error=error, next_at=next_at)
        next_ms = "" if next_at is None else timestamp_ms(next_at)
        settled = bool(self._settle(args=[job_id, attempt, record.model_dump_json(), next_ms]))
        if settled and next_at is None:
            self._journal.write_webhook(job_id, WebhookDocument(deliveries=(*before, record)))
        return settled


def without_old_webhook(job: JobRecord, now: datetime) -> JobRecord:
    """Give up a webhook of which nobody knows whether it was delivered, where its job ended too long ago."""
    if not job.awaits_delivery or job.finished_at is None or job.finished_at > now - _DELIVERED_WITHIN:
        return job
    attempt = job.deliveries[-1].attempt + 1 if job.deliveries else 1
    error = "it is not known whether it was sent: Redis was rebuilt more than a day after the job's end"
    given_up = Delivery(attempt=attempt, at=now, status=None, error=error, next_at=None)
    return replace(job, deliveries=(*job.deliveries, given_up))
