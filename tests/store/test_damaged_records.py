"""The record of a job's end is damaged on the disk: the others go on, and Redis has what it said."""

import logging
from pathlib import Path

import pytest
from fixtures.store import ARTIFACTS, OUT_OF_MEMORY, TENANT, claim, submit
from redis import Redis

from nextrapolate.schemas import JobState
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
OF_ANOTHER_VERSION = b'{"format": 2}'


def end_of(store_settings: StoreSettings, job: JobRecord) -> Path:
    return store_settings.data_dir / "jobs" / job.id / "end.json"


def fail(store: Store, job: JobRecord) -> None:
    assert store.jobs.fail(job.id, claim(store, job).fence, OUT_OF_MEMORY)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_end_is_written_anew_and_kept(
    store: Store, store_settings: StoreSettings, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    jobs = [submit(store) for _ in range(3)]
    for job in jobs:
        fail(store, job)
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
    jobs = [submit(store) for _ in range(3)]
    for job in jobs:
        fail(store, job)
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
    with pytest.raises(RecordUnreadable, match="another version"):
        store.jobs.claim(job.id, worker="test")
    assert store.jobs.get(TENANT, job.id).state is JobState.QUEUED
