"""A record cannot be read, on the disk or in Redis: the others go on, and nothing of it is lost."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.store import ARTIFACTS, INPUTS, OUT_OF_MEMORY, REQUEST, TENANT, claim, submit
from redis import Redis

from nextrapolate.schemas import Delivery, JobRequest, JobState, Webhook
from nextrapolate_store.credentials import Credential
from nextrapolate_store.errors import RecordUnreadable
from nextrapolate_store.records import JobRecord
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

DAMAGE = {
    "empty": b"",
    "cut short": b'{"format": 1, "job": {"id"',
    "zeroed": b"\0" * 512,
    "no text": b"\xff\xfe",
}
TELLING: JobRequest = REQUEST.model_copy(update={"webhook": Webhook(url="https://example.org/")})
SECRET: dict[Credential, str] = {"webhook-secret": "whsec_c2VjcmV0"}
OF_ANOTHER_VERSION = b'{"format": 2}'


def end_of(store_settings: StoreSettings, job: JobRecord) -> Path:
    return store_settings.data_dir / "jobs" / job.id / "end.json"


def fail(store: Store, job: JobRecord) -> None:
    assert store.jobs.fail(job.id, claim(store, job).fence, OUT_OF_MEMORY)


def three_failed(store: Store) -> list[JobRecord]:
    jobs = [submit(store) for _ in range(3)]
    for job in jobs:
        fail(store, job)
    return jobs


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_end_is_written_anew_and_kept(
    store: Store, store_settings: StoreSettings, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    jobs = three_failed(store)
    record = end_of(store_settings, jobs[1])
    record.write_bytes(damage)
    assert store.recorder.record_ends() == len(jobs)
    assert store.recorder.record_ends() == 0
    assert record.with_suffix(".json.damaged").read_bytes() == damage
    (told,) = errors(caplog)
    assert str(record) in told
    assert "end.json.damaged" in told
    before = [store.jobs.get(TENANT, job.id) for job in jobs]
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.flushall()
    assert Store.rebuild(store_settings, add_missing=False).ended == len(jobs)
    assert [store.jobs.get(TENANT, job.id) for job in jobs] == before


def test_an_end_of_another_version_waits_for_it_is_told_once_and_holds_up_no_other(
    store: Store, store_settings: StoreSettings, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = three_failed(store)
    newer = end_of(store_settings, jobs[1])
    newer.write_bytes(OF_ANOTHER_VERSION)
    assert [store.recorder.record_ends() for _ in range(3)] == [2, 0, 0]
    (told,) = errors(caplog)
    assert str(newer) in told
    assert newer.read_bytes() == OF_ANOTHER_VERSION
    newer.unlink()
    assert store.recorder.record_ends() == 1
    assert newer.exists()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_queued_job_beside_a_damaged_end_runs(
    store: Store, store_settings: StoreSettings, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    """Redis has lost that it ended, as a replica that takes over may."""
    job = submit(store)
    end_of(store_settings, job).write_bytes(damage)
    claimed = claim(store, job)
    (told,) = errors(caplog)
    assert str(end_of(store_settings, job)) in told
    assert store.jobs.claim(job.id, worker="woken twice") is None
    assert store.jobs.commit(job.id, claimed.fence, ARTIFACTS)
    assert store.recorder.record_ends() == 1
    assert store.jobs.claim(job.id, worker="woken late") is None
    assert store.jobs.get(TENANT, job.id).state is JobState.SUCCEEDED
    assert len(errors(caplog)) == 2


def test_a_queued_job_beside_an_end_of_another_version_is_left_to_that(
    store: Store, store_settings: StoreSettings
) -> None:
    job = submit(store)
    end_of(store_settings, job).write_bytes(OF_ANOTHER_VERSION)
    with pytest.raises(RecordUnreadable, match="written by a version"):
        store.jobs.claim(job.id, worker="test")
    assert store.jobs.get(TENANT, job.id).state is JobState.QUEUED


# A job's record in Redis ------------------------------------------------------------------------------


@pytest.fixture
def redis(store_settings: StoreSettings) -> Iterator[Redis]:
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:
        yield redis


@pytest.fixture
def one_unreadable(store: Store, redis: Redis) -> list[str]:
    """Ids of jobs that have ended, each with a secret; the record of the second is of a later version."""
    ids = []
    for _ in range(3):
        job = store.jobs.submit(
            TENANT, TELLING, INPUTS, idempotency_key=None, body_digest="", credentials=SECRET
        )
        store.jobs.cancel(TENANT, job.id)
        ids.append(job.id)
    redis.hset(f"next:job:{ids[1]}", "request", '{"task": "later", "webhook": {"url": "https://x/"}}')
    return ids


def test_one_that_cannot_be_read_holds_up_no_other_end_and_no_other_secret(
    store: Store, one_unreadable: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    unreadable = one_unreadable[1]
    assert [store.recorder.record_ends() for _ in range(3)] == [2, 0, 0]
    for due in store.deliveries.claim(9):
        store.deliveries.settle(due, status=204, error=None, wait_seconds=None)
    for _ in range(3):
        store.credentials.forget_over()
    kept = [store.credentials.get(job_id, "webhook-secret") for job_id in one_unreadable]
    assert kept == [None, *SECRET.values(), None]
    told = errors(caplog)
    assert len(told) == 2  # once each for its end and its webhook
    assert all(unreadable in line for line in told)


def test_an_end_that_the_disk_does_not_take_holds_up_no_other(
    store: Store, store_settings: StoreSettings, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = three_failed(store)
    end_of(store_settings, jobs[1]).mkdir()  # nothing can be linked there, and nothing read
    assert [store.recorder.record_ends() for _ in range(3)] == [2, 0, 0]
    assert len(errors(caplog)) == 1
    end_of(store_settings, jobs[1]).rmdir()
    assert store.recorder.record_ends() == 1


def test_one_that_cannot_be_read_costs_no_other_webhook_an_attempt(
    store: Store, one_unreadable: list[str], redis: Redis
) -> None:
    first, unreadable, last = one_unreadable
    assert [(due.job.id, due.attempt) for due in store.deliveries.claim(9)] == [(first, 1), (last, 1)]
    for attempt in range(1, 9):
        noted = Delivery.model_validate_json(str(redis.hget(f"next:job:{unreadable}", f"delivery:{attempt}")))
        assert "that this nextrapolate cannot read" in (noted.error or "")
        assert (noted.next_at is None) == (attempt == 8)  # an upgrade is long through by then
        assert redis.zscore(f"next:tenant-telling:{TENANT}", unreadable) is None
        if noted.next_at is not None:
            redis.zadd("next:deliveries", {unreadable: 0})
            assert store.deliveries.claim(9) == []
    assert redis.zscore("next:deliveries", unreadable) is None
    store.credentials.forget_over()
    kept = [store.credentials.get(job_id, "webhook-secret") for job_id in one_unreadable]
    assert kept == [*SECRET.values(), None, *SECRET.values()]


def test_one_that_cannot_be_read_is_left_out_of_lists_and_the_pages_go_on(
    store: Store, one_unreadable: list[str]
) -> None:
    first, unreadable, last = one_unreadable
    found: list[str] = []
    cursor = None
    for _ in range(3):
        page, cursor = store.jobs.list(TENANT, limit=1, cursor=cursor)
        found += [job.id for job in page]
    assert (found, cursor) == ([last, first], None)
    assert store.jobs.find(TENANT, "", limit=9, look_at=9, cursor=None)[0] != []
    with pytest.raises(RecordUnreadable, match=unreadable):
        store.jobs.get(TENANT, unreadable)


def test_one_that_cannot_be_read_is_not_claimed_and_loses_no_attempt(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    """As a worker of before an upgrade meets it: one field more is enough."""
    job = submit(store)
    request = str(redis.hget(f"next:job:{job.id}", "request"))
    redis.hset(f"next:job:{job.id}", "request", json.dumps(json.loads(request) | {"of_a_later_version": 1}))
    for _ in range(store_settings.max_attempts + 1):
        with pytest.raises(RecordUnreadable, match=job.id):
            store.jobs.claim(job.id, worker="of before")
    redis.hset(f"next:job:{job.id}", "request", request)
    assert store.jobs.get(TENANT, job.id) == job
    assert claim(store, job).attempt == 1
