"""Jobs: every change of one is a script, so that a record, its indexes and its events never disagree."""

import json
import logging
import re
import secrets
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import cast

from nextrapolate.schemas import FileInfo, JobError, JobEvent, JobRequest, JobState, Stage
from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.credentials import Credential, CredentialStore
from nextrapolate_store.decoding import (
    ARTIFACTS,
    INPUTS,
    Fields,
    event_fields,
    job_event,
    job_fields,
    job_record,
    pairs,
    timestamp_ms,
    when,
)
from nextrapolate_store.deliveries import without_old_webhook
from nextrapolate_store.documents import EndDocument, JobDocument
from nextrapolate_store.errors import (
    IdempotencyInFlight,
    IdempotencyMismatch,
    InvalidCursor,
    JobFinished,
    JobNotFound,
    RecordDamaged,
)
from nextrapolate_store.ids import is_id
from nextrapolate_store.job_lists import JobLists
from nextrapolate_store.journal import Journal
from nextrapolate_store.queue import BROKER_LIST
from nextrapolate_store.quotas import QuotaStore, exceeded
from nextrapolate_store.records import Beat, Claim, JobInputs, JobRecord, Reconciled
from nextrapolate_store.retention import milliseconds
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.statistics import stage_counters
from nextrapolate_store.tenants import Quota

_log = logging.getLogger(__name__)

_Entries = list[tuple[str, Fields]]
_EVENT_ID = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")

_EVENTS_A_CALL = 1000
_JOBS_A_PASS = 1000
_RESERVATION_SECONDS = 10
"""How long a submit may take before another request with its idempotency key takes over."""
_LONGEST_REST_MS = 600_000

_WORKER_LOST = JobError(
    code="worker-lost",
    detail="the worker's heartbeat stopped: it died, hung, or lost its connection to Redis; its log may "
    "say why",
    blame="server",
)


class JobStore(JobLists):
    """The jobs of all tenants.

    Who holds a claim shows its fence (to `beat`, `commit`, `fail`, `give_up`, `release`,
    `confirm_cancelled`); where that is not the newest, nothing changes, and the refusal is counted. All
    methods raise `StoreUnavailable` where Redis does not answer, and may then be called again.
    """

    def __init__(
        self,
        redis: Connection,
        journal: Journal,
        credentials: CredentialStore,
        quotas: QuotaStore,
        settings: StoreSettings,
    ) -> None:
        super().__init__(redis)
        self._journal = journal
        self._credentials = credentials
        self._quotas = quotas
        self._remembered_ms = milliseconds(settings.retention.idempotency_keys)
        self._lease_ms = round(settings.lease_seconds * 1000)
        self._max_attempts = settings.max_attempts
        self._rest_ms = self._lease_ms // 3
        self._reserve, self._submit = redis.load("reserve"), redis.load("submit")
        self._claim, self._beat = redis.load("claim"), redis.load("beat")
        self._commit, self._fail, self._give_up = (redis.load(name) for name in ("commit", "fail", "give_up"))
        self._cancel, self._confirm_cancelled = redis.load("cancel"), redis.load("confirm_cancelled")
        self._release, self._restore = redis.load("release"), redis.load("restore")
        self._reconcile = redis.load("reconcile")

    # By callers -----------------------------------------------------------------------------------

    def submit(
        self,
        tenant: str,
        request: JobRequest,
        inputs: JobInputs,
        *,
        idempotency_key: str | None,
        body_digest: str,
        credentials: Mapping[Credential, str] = MappingProxyType({}),
        bytes_to_fetch: int = 0,
    ) -> JobRecord:
        """Queue a job; once this returns, it is on disk twice (Redis and job.json) and will be run.

        The wake-up is the caller's to send, and may fail: `reconcile` names the job again. With an
        idempotency key the same request gives the same job for 24 hours.

        Raises:
            IdempotencyMismatch: the key was used with another body.
            IdempotencyInFlight: the same request is being submitted right now.
            QuotaExceeded: the tenant has as many queued or kept jobs as it may, or no room for what has to be
                fetched or for results.
        """
        job_id, now_ms = self._redis.new_id()
        # Results take room, too, but nobody knows how much: not all of it may be used up.
        needed = {Quota.QUEUED_JOBS: 1, Quota.KEPT_JOBS: 1, Quota.BYTES: 1 + bytes_to_fetch}
        if idempotency_key is None:
            self._quotas.hold(tenant, job_id, needed)
        else:
            job_id, submitted = self._reserve_key(tenant, idempotency_key, body_digest, job_id, needed)
            if submitted:
                return self.get(tenant, job_id)
        document = JobDocument(
            id=job_id,
            tenant=tenant,
            created_at=when(now_ms),
            request=request,
            inputs=inputs,
            idempotency_key=idempotency_key,
            body_digest=body_digest,
            webhook_is_signed="webhook-secret" in credentials,
        )
        # Whoever wrote job.json first decides what the job is: two that share a key may see different inputs.
        document = self._journal.write_job(document)
        for name, secret in credentials.items():
            self._credentials.put(job_id, name, secret)
        _, record = self._queue(document, bytes_to_fetch=bytes_to_fetch)
        return job_record(record)

    def submitted(self, tenant: str, idempotency_key: str, body_digest: str) -> JobRecord | None:
        """Read the job that a request with this idempotency key has made; None where there is none yet.

        Raises:
            IdempotencyMismatch: the key was used with another body.
        """
        known = self._redis.fields(f"{RedisKey.IDEMPOTENCY}{tenant}:{idempotency_key}")
        if not known:
            return None
        if known["digest"] != body_digest:
            raise _mismatch(idempotency_key)
        fields = self._redis.fields(RedisKey.JOB + known["job"])
        return job_record(fields) if fields else None

    def _queue(
        self, document: JobDocument, *, fence: int = 0, bytes_to_fetch: int = 0
    ) -> tuple[bool, Fields]:
        """Tell whether the job is new, and what Redis has of it."""
        request, inputs = document.request.model_dump_json(), INPUTS.dump_json(document.inputs)
        created_at, signed = timestamp_ms(document.created_at), int(document.webhook_is_signed)
        what = (document.id, document.tenant, request, inputs, created_at)
        is_new, record = self._submit(args=[*what, fence, bytes_to_fetch, signed])
        return bool(is_new), pairs(record)

    def _reserve_key(
        self, tenant: str, key: str, digest: str, job_id: str, needed: Mapping[Quota, int]
    ) -> tuple[str, bool]:
        """Give the job id that belongs to the key, and whether that job is there already."""
        holds_ms = _RESERVATION_SECONDS * 1000
        outcome, *found = self._reserve(
            args=[tenant, key, digest, job_id, holds_ms, self._remembered_ms, json.dumps(needed)]
        )
        if outcome == "quota":
            raise exceeded(tenant, *found)
        if outcome == "mismatch":
            raise _mismatch(key)
        if outcome == "in-flight":
            raise IdempotencyInFlight(
                f"a request with the idempotency key {key!r} is being worked on: repeat this one in a moment"
            )
        return found[0], outcome == "submitted"

    def get(self, tenant: str, job_id: str) -> JobRecord:
        """Read a job.

        Raises:
            JobNotFound: there is no such job, or it is another tenant's.
        """
        fields = self._redis.fields(RedisKey.JOB + job_id) if is_id(job_id) else {}
        if fields.get("tenant") != tenant:
            raise _not_found(job_id)
        return job_record(fields)

    def ended(self, job_ids: Collection[str]) -> set[str]:
        """Tell which of some jobs have ended, of however many in one command."""
        asked = list(job_ids)
        if not asked:
            return set()
        times = self._redis.zmscore(RedisKey.ENDED, asked)
        return {job_id for job_id, at in zip(asked, times, strict=True) if at is not None}

    def events(self, job_id: str, after: str | None) -> list[JobEvent]:
        """Read what happened to a job after the event of that id, oldest first, at most 1000 events a call.

        Raises:
            InvalidCursor: no event can have this id.
        """
        if after is not None and not _EVENT_ID.fullmatch(after):
            raise InvalidCursor(
                f"{after!r} is not an event id: use the id of the last event that was received"
            )
        start = f"({after}" if after else "-"
        entries = self._redis.xrange(RedisKey.EVENTS + job_id, start, count=_EVENTS_A_CALL)
        return [job_event(event_id, fields) for event_id, fields in cast(_Entries, entries)]

    def queue_position(self, job_id: str) -> int | None:
        """How many queued jobs are before this one; None where it is not queued, or is parked."""
        return cast(int | None, self._redis.zrank(RedisKey.QUEUED, job_id))

    def cancel(self, tenant: str, job_id: str) -> JobRecord:
        """Cancel a queued job at once, a running one with its next beat; a cancelled one stays as it is.

        Raises:
            JobNotFound: there is no such job, or it is another tenant's.
            JobFinished: it succeeded or failed before.
        """
        state = self._cancel(args=[job_id, tenant])
        if state is None:
            raise _not_found(job_id)
        if state in (JobState.SUCCEEDED, JobState.FAILED):
            raise JobFinished(f"job {job_id} has already {state}: there is nothing left to stop")
        return self.get(tenant, job_id)

    # By workers -----------------------------------------------------------------------------------

    def claim(self, job_id: str, worker: str) -> Claim | None:
        """Take a queued job to run it; None where it is not queued (any more).

        None, too, where as many jobs of its tenant run as may; `reconcile` names it when there is room. One
        whose end is on disk, and was lost when a replica of Redis took over, ends as it did; where that is
        damaged, nobody knows any more how it did, and it runs again.

        Raises:
            RecordUnreadable: its record, or its end on disk, is of another version or cannot be read. It
                is left in the queue, for a worker that can read it.
        """
        end, damage = None, None
        try:
            end = self._journal.read_end(job_id)
        except RecordDamaged as error:
            damage = error
        if end is not None:
            self.restore(*self._journal.read_job(job_id))
            return None
        record = self._redis.fields(RedisKey.JOB + job_id)
        if record.get("state") != JobState.QUEUED:
            return None
        job_record(record)  # one that cannot be read is not taken: that would cost it an attempt
        fence = self._claim(args=[job_id, worker, secrets.token_hex(8), self._lease_ms])
        if fence is None:
            return None
        if damage is not None:
            _log.error("it runs once more: %s", damage, extra={"job_id": job_id})
        job = job_record(self._redis.fields(RedisKey.JOB + job_id))
        return Claim(job=job, fence=fence, attempt=job.attempt)

    def beat(self, job_id: str, fence: int, *, stage: Stage | None, progress: float | None) -> Beat:
        """Prolong the lease of a claim; what is not None and new becomes a progress event."""
        news = ["" if value is None else value for value in (stage, progress)]
        return Beat(self._beat(args=[job_id, fence, self._lease_ms, *news]))

    def commit(
        self,
        job_id: str,
        fence: int,
        artifacts: Mapping[str, FileInfo],
        stage_seconds: Mapping[Stage, float] = MappingProxyType({}),
    ) -> bool:
        """Make what lies in the attempt's result folder, flushed to disk, the result of the job.

        How long its stages took goes into the statistics. False where the job is somebody else's by now, or
        was asked to be cancelled (then confirm that).
        """
        counted = [text for pair in stage_counters(stage_seconds).items() for text in map(str, pair)]
        return bool(self._commit(args=[job_id, fence, ARTIFACTS.dump_json(dict(artifacts)), *counted]))

    def fail(self, job_id: str, fence: int, error: JobError) -> bool:
        """End a job with an error that another attempt would not mend.

        One that was asked to be cancelled ends as cancelled. False where the job is somebody else's by now.
        """
        return bool(self._fail(args=[job_id, fence, error.model_dump_json()]))

    def confirm_cancelled(self, job_id: str, fence: int) -> bool:
        """Say that the work has stopped; False where the job is not this claim's to cancel."""
        return bool(self._confirm_cancelled(args=[job_id, fence]))

    def give_up(self, job_id: str, fence: int, error: JobError) -> JobState:
        """End an attempt that died, and give the state of the job.

        It is queued again while it has attempts left, to be woken after a third of a lease, and four times
        as long after each further attempt; failed with this error after the last. Nothing changes where it is
        somebody else's by now.

        Raises:
            JobNotFound: there is no such job.
        """
        told, rest_ms = error.model_dump_json(), self._rest_ms
        state = self._give_up(args=[job_id, fence, told, self._max_attempts, rest_ms, _LONGEST_REST_MS])
        if state is None:
            raise _not_found(job_id)
        return JobState(state)

    def release(self, job_id: str, fence: int, why: str) -> JobState:
        """Give a job back that its worker could not finish, for no fault of the job's, and give its state.

        It is queued again, however many attempts it had: this one does not count. Nothing changes where it is
        somebody else's by now.

        Raises:
            JobNotFound: there is no such job.
        """
        state = self._release(args=[job_id, fence, why])
        if state is None:
            raise _not_found(job_id)
        return JobState(state)

    # By the reconciler and the rebuild ------------------------------------------------------------

    def reconcile(self, *, wake_after_seconds: float = 5) -> Reconciled:
        """Put right what dead processes and lost messages left behind; any process, any time.

        Leases that ended give their jobs back, or fail or cancel them. Queued jobs are named in `wake` where
        they have waited so long that their message must be lost, and the broker's list does not explain it.
        One whose record is gone holds up no other: it leaves the indexes, and is named in `gone`.
        """
        ids = self._reconcile(
            keys=[BROKER_LIST],
            args=[
                self._max_attempts,
                round(wake_after_seconds * 1000),
                _WORKER_LOST.model_dump_json(),
                _JOBS_A_PASS,
            ],
        )
        return Reconciled(*map(tuple, ids))

    def restore(self, document: JobDocument, end: EndDocument | None) -> bool:
        """Bring a job back from its records, as it ended or queued again; False where it is there already."""
        now_ms = self._redis.now_ms()
        self._restore_key(document, now_ms)
        if end is None:
            # A worker may still hold a claim from before; the time is above all fences that were given out.
            return self._queue(document, fence=now_ms)[0]
        job = without_old_webhook(end.job, when(now_ms))
        due_at = now_ms if job.awaits_delivery else ""
        fields = job_fields(job)
        events = [[event.id, event_fields(event)] for event in end.events]
        args = [job.id, fields["finished_at"], json.dumps(fields), json.dumps(events), due_at]
        return bool(self._restore(args=args))

    def _restore_key(self, document: JobDocument, now_ms: int) -> None:
        remembered_ms = timestamp_ms(document.created_at) + self._remembered_ms - now_ms
        if document.idempotency_key is not None and remembered_ms > 0:
            key, digest = document.idempotency_key, document.body_digest
            self._reserve(args=[document.tenant, key, digest, document.id, 0, remembered_ms, "{}"])


def _not_found(job_id: str) -> JobNotFound:
    return JobNotFound(f"there is no job {job_id}")


def _mismatch(key: str) -> IdempotencyMismatch:
    return IdempotencyMismatch(
        f"the idempotency key {key!r} was used with another body: use a new key for a new request"
    )
