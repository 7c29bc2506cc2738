"""Webhooks of jobs that have ended: which are due, and what came of each attempt."""

from nextrapolate.schemas import Delivery
from nextrapolate_store.connection import Connection, Key
from nextrapolate_store.decoding import job_record, timestamp_ms, when
from nextrapolate_store.deployment import Deployment
from nextrapolate_store.documents import WebhookDocument
from nextrapolate_store.journal import Journal
from nextrapolate_store.records import DueDelivery

_HOLD_SECONDS = 60.0
"""How long a process may take over an attempt before another one makes it."""
_OF_ONE_TENANT = 4
"""How many of a tenant's are told at a time: receivers that never answer hold up no other tenant's."""
_LOOKED_AT = 1000
"""Bounds what one claim costs Redis where thousands of one tenant are due."""


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
        taken = self._claim(args=[limit, round(hold_seconds * 1000), _OF_ONE_TENANT, _LOOKED_AT])
        records = [(self._redis.fields(Key.JOB + job_id), attempt) for job_id, attempt in taken]
        return [DueDelivery(job_record(fields), attempt) for fields, attempt in records if "id" in fields]

    def settle(
        self, due: DueDelivery, *, status: int | None, error: str | None, wait_seconds: float | None
    ) -> bool:
        """Note what came of an attempt; False, and nothing is noted, where it is somebody else's by now.

        Args:
            due: the attempt.
            status: of the answer, if there was one.
            error: why the webhook does not count as told.
            wait_seconds: until the next attempt; None where there will be none.
        """
        now_ms = self._redis.now_ms()
        next_at = None if wait_seconds is None else when(now_ms + round(wait_seconds * 1000))
        record = Delivery(attempt=due.attempt, at=when(now_ms), status=status, error=error, next_at=next_at)
        next_ms = "" if next_at is None else timestamp_ms(next_at)
        settled = bool(self._settle(args=[due.job.id, due.attempt, record.model_dump_json(), next_ms]))
        if settled and next_at is None:
            told = WebhookDocument(deliveries=(*due.job.deliveries, record))
            self._journal.write_webhook(due.job.id, told)
        return settled
