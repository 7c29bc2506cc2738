"""What each caller of the job protocol is promised."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.lossy_redis import lossy_redis
from fixtures.store import ARTIFACTS, INPUTS, OUT_OF_MEMORY, REQUEST, TENANT, claim, submit
from redis import Redis

from nextrapolate.schemas import JobError, JobState, NextMethod, Stage
from nextrapolate_store.errors import (
    IdempotencyInFlight,
    IdempotencyMismatch,
    InvalidCursor,
    JobFinished,
    JobNotFound,
)
from nextrapolate_store.records import Beat
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

# Submit ---------------------------------------------------------------------------------------------


def test_a_submitted_job_is_queued_and_on_disk(store: Store, store_settings: StoreSettings) -> None:
    job = submit(store)
    assert (job.state, job.attempt, job.fence, job.error) == (JobState.QUEUED, 0, 0, None)
    assert (job.request, job.inputs) == (REQUEST, INPUTS)
    assert store.jobs.get(TENANT, job.id) == job
    document = (store_settings.data_dir / "jobs" / job.id / "job.json").read_text()
    assert job.id in document
    assert "checkpoint-20" in document


def test_the_queue_has_positions(store: Store) -> None:
    jobs = [submit(store) for _ in range(3)]
    waiting = sorted(jobs, key=lambda job: (job.created_at, job.id))
    assert [store.jobs.queue_position(job.id) for job in waiting] == [0, 1, 2]
    claim(store, waiting[0])
    assert [store.jobs.queue_position(job.id) for job in waiting] == [None, 0, 1]


def test_the_same_key_and_body_give_the_same_job(store: Store) -> None:
    first = submit(store, key="k", digest="a")
    assert submit(store, key="k", digest="a") == first
    assert submit(store, key="other", digest="a").id != first.id
    assert submit(store, key="k", digest="a", tenant="other").id != first.id
    with pytest.raises(IdempotencyMismatch, match="new key"):
        submit(store, key="k", digest="b")


def test_twenty_at_once_with_one_key_make_one_job(store: Store) -> None:
    def attempt(_: int) -> str | None:
        try:
            return submit(store, key="k", digest="a").id
        except IdempotencyInFlight:
            return None

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(attempt, range(20)))
    assert len(answers - {None}) == 1
    assert len(store.jobs.list(TENANT, limit=10, cursor=None)[0]) == 1


def test_a_submit_that_died_half_way_is_taken_over(store: Store, store_settings: StoreSettings) -> None:
    """The holder of the key dies after job.json: nobody waits for ever, and what it wrote is what runs."""
    first = submit(store, key="k", digest="a")
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.delete(f"next:job:{first.id}")
        with pytest.raises(IdempotencyInFlight, match="in a moment"):
            submit(store, key="k", digest="a")
        redis.hset(f"next:idempotency:{TENANT}:k", "reserved_at", 0)
    other = REQUEST.model_copy(update={"method": NextMethod(seed=7)})
    second = store.jobs.submit(TENANT, other, INPUTS, idempotency_key="k", body_digest="a")
    assert (second.id, second.request, second.created_at) == (first.id, first.request, first.created_at)


def test_a_key_is_forgotten_after_a_day(store: Store, store_settings: StoreSettings) -> None:
    first = submit(store, key="k", digest="a")
    store.sweeper.sweep()
    assert submit(store, key="k", digest="a") == first
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.zadd("next:idempotency-ends", {f"next:idempotency:{TENANT}:k": 0})
    assert store.sweeper.sweep().idempotency_keys == 1
    assert submit(store, key="k", digest="b").id != first.id


# Claim, beat, commit --------------------------------------------------------------------------------


def test_two_workers_cannot_claim_one_job(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            job = submit(store)
            claims = list(pool.map(store.jobs.claim, [job.id] * 8, "abcdefgh"))
            assert len([taken for taken in claims if taken is not None]) == 1


def test_a_claim_of_nothing_is_none(store: Store) -> None:
    assert store.jobs.claim("01ARZ3NDEKTSV4RRFFQ69G5FAV", worker="w") is None


def test_a_stale_fence_is_refused_and_counted(store: Store) -> None:
    job = submit(store)
    stopped = claim(store, job)
    assert store.jobs.give_up(job.id, stopped.fence, OUT_OF_MEMORY) is JobState.QUEUED
    current = claim(store, job)
    assert current.fence > stopped.fence

    assert not store.jobs.commit(job.id, stopped.fence, ARTIFACTS)
    assert not store.jobs.fail(job.id, stopped.fence, OUT_OF_MEMORY)
    assert not store.jobs.confirm_cancelled(job.id, stopped.fence)
    assert store.jobs.give_up(job.id, stopped.fence, OUT_OF_MEMORY) is JobState.RUNNING
    beat = store.jobs.beat(job.id, stopped.fence, stage=Stage.FIT, progress=0.9)
    assert beat is Beat.LOST
    counted = store.statistics.read()
    assert (counted.fence_refused, counted.attempts_failed) == (5, 1)

    assert store.jobs.commit(job.id, current.fence, ARTIFACTS)
    done = store.jobs.get(TENANT, job.id)
    assert (done.state, done.artifacts, done.progress) == (JobState.SUCCEEDED, ARTIFACTS, 1)


def test_beats_tell_news_only(store: Store) -> None:
    job = submit(store)
    fence = claim(store, job).fence
    for _ in range(3):
        assert store.jobs.beat(job.id, fence, stage=Stage.FIT, progress=0.5) is Beat.HELD
        assert store.jobs.beat(job.id, fence, stage=None, progress=None) is Beat.HELD
    progress = [event for event in store.jobs.events(job.id, None) if event.type == "progress"]
    assert [(event.stage, event.progress) for event in progress] == [(Stage.FIT, 0.5)]
    assert store.jobs.get(TENANT, job.id).stage is Stage.FIT


def test_a_beat_keeps_the_lease(store_settings: StoreSettings) -> None:
    store = Store.open(replace(store_settings, lease_seconds=0.2))
    job = submit(store)
    fence = claim(store, job).fence
    with Redis.from_url(store_settings.redis_url) as redis:
        ends = redis.zscore("next:leases", job.id)
        time.sleep(0.002)  # it is kept in milliseconds
        store.jobs.beat(job.id, fence, stage=None, progress=None)
        assert redis.zscore("next:leases", job.id) > ends
    store.close()


def test_no_attempt_beyond_the_last(store: Store) -> None:
    job = submit(store)
    states = [store.jobs.give_up(job.id, claim(store, job).fence, OUT_OF_MEMORY) for _ in range(3)]
    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    assert store.jobs.get(TENANT, job.id).error == OUT_OF_MEMORY
    assert store.jobs.claim(job.id, worker="w") is None


def test_a_job_given_back_by_a_stopping_worker_loses_no_attempt(store: Store) -> None:
    job = submit(store)
    fence = 0
    for _ in range(5):
        taken = claim(store, job)
        assert (taken.fence > fence, taken.attempt) == (True, 1)
        fence = taken.fence
        assert store.jobs.release(job.id, taken.fence, "stopped") is JobState.QUEUED
        assert store.jobs.reconcile().wake == (job.id,)
    assert store.jobs.get(TENANT, job.id).attempt == 0
    current = claim(store, job)
    assert store.jobs.release(job.id, current.fence - 1, "stopped") is JobState.RUNNING
    store.jobs.cancel(TENANT, job.id)
    assert store.jobs.release(job.id, current.fence, "stopped") is JobState.CANCELLED


def test_a_job_of_the_users_fault_fails_at_once(store: Store) -> None:
    job = submit(store)
    error = JobError(code="not-finite", detail="checkpoint 20 holds NaN", blame="user")
    assert store.jobs.fail(job.id, claim(store, job).fence, error)
    failed = store.jobs.get(TENANT, job.id)
    assert (failed.state, failed.error) == (JobState.FAILED, error)
    assert store.jobs.events(job.id, None)[-1].message == error.detail


# Cancel ---------------------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once(store: Store) -> None:
    job = submit(store)
    assert store.jobs.cancel(TENANT, job.id).state is JobState.CANCELLED
    assert store.jobs.cancel(TENANT, job.id).state is JobState.CANCELLED
    assert store.jobs.claim(job.id, worker="w") is None


def test_a_running_job_is_cancelled_through_its_beat(store: Store) -> None:
    job = submit(store)
    fence = claim(store, job).fence
    assert store.jobs.cancel(TENANT, job.id).state is JobState.CANCELLING
    assert store.jobs.beat(job.id, fence, stage=None, progress=None) is Beat.CANCEL
    assert not store.jobs.commit(job.id, fence, ARTIFACTS)
    assert store.jobs.confirm_cancelled(job.id, fence)
    assert [event.type for event in store.jobs.events(job.id, None)] == [
        "queued",
        "claimed",
        "cancelling",
        "cancelled",
    ]


def test_what_has_ended_cannot_be_cancelled(store: Store) -> None:
    job = submit(store)
    store.jobs.commit(job.id, claim(store, job).fence, ARTIFACTS)
    with pytest.raises(JobFinished, match="succeeded"):
        store.jobs.cancel(TENANT, job.id)


# Reading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job_id", ["", "nonsense", "../../etc/passwd", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "\udce4"]
)
def test_an_unknown_job_is_not_found(store: Store, job_id: str) -> None:
    with pytest.raises(JobNotFound):
        store.jobs.get(TENANT, job_id)


def test_another_tenants_job_is_not_found(store: Store) -> None:
    job = submit(store)
    for call in (store.jobs.get, store.jobs.cancel):
        with pytest.raises(JobNotFound):
            call("other", job.id)
    assert store.jobs.get(TENANT, job.id).state is JobState.QUEUED
    assert store.jobs.list("other", limit=10, cursor=None) == ([], None)


def test_pages_hold_every_job_once_newest_first(store: Store) -> None:
    jobs = sorted((submit(store).id for _ in range(7)), reverse=True)
    seen, cursor = [], None
    while True:
        page, cursor = store.jobs.list(TENANT, limit=3, cursor=cursor)
        seen += [job.id for job in page]
        if cursor is None:
            break
    assert seen == jobs
    assert store.jobs.list(TENANT, limit=3, cursor=None, state=JobState.RUNNING) == ([], None)
    with pytest.raises(InvalidCursor, match="next_cursor"):
        store.jobs.list(TENANT, limit=3, cursor="yesterday")


def test_events_resume_after_any_of_them(store: Store) -> None:
    job = submit(store)
    fence = claim(store, job).fence
    for progress in (0.1, 0.2, 0.3):
        store.jobs.beat(job.id, fence, stage=Stage.FIT, progress=progress)
    store.jobs.commit(job.id, fence, ARTIFACTS)
    events = store.jobs.events(job.id, None)
    assert [event.state for event in events] == ["queued", *4 * ["running"], "succeeded"]
    for position, event in enumerate(events, start=1):
        assert store.jobs.events(job.id, event.id) == events[position:]


@pytest.mark.parametrize("after", ["", "x", "1-2-3", "99999999999999999999", "-1", "1-", "٣"])
def test_an_event_id_of_ones_own_is_refused(store: Store, after: str) -> None:
    with pytest.raises(InvalidCursor):
        store.jobs.events(submit(store).id, after)


# A lost reply ---------------------------------------------------------------------------------------


def test_a_lost_reply_changes_nothing(
    store_settings: StoreSettings, store: Store, hasty_redis: None, tmp_path: Path
) -> None:
    """Each script is run, its reply lost, and sent again: as if it had been sent once."""
    with lossy_redis(store_settings.redis_url, tmp_path) as proxy:
        far = Store.open(replace(store_settings, redis_url=proxy.url))
        jobs = far.jobs

        proxy.lose_next_reply()
        job = submit(far)
        proxy.lose_next_reply()
        keyed = submit(far, key="k", digest="a")
        assert submit(far, key="k", digest="a") == keyed
        assert len(store.jobs.list(TENANT, limit=10, cursor=None)[0]) == 2

        proxy.lose_next_reply()
        dead = claim(far, job)
        assert (dead.fence, dead.attempt) == (store.jobs.get(TENANT, job.id).fence, 1)
        proxy.lose_next_reply()
        assert jobs.give_up(job.id, dead.fence, OUT_OF_MEMORY) is JobState.QUEUED

        stopped = claim(far, job)
        proxy.lose_next_reply()
        assert jobs.release(job.id, stopped.fence, "stopped") is JobState.QUEUED

        alive = claim(far, job)
        proxy.lose_next_reply()
        assert jobs.beat(job.id, alive.fence, stage=Stage.FIT, progress=0.5) is Beat.HELD
        proxy.lose_next_reply()
        assert jobs.commit(job.id, alive.fence, ARTIFACTS)

        other = claim(far, keyed)
        proxy.lose_next_reply()
        assert jobs.cancel(TENANT, keyed.id).state is JobState.CANCELLING
        proxy.lose_next_reply()
        assert jobs.confirm_cancelled(keyed.id, other.fence)

        assert proxy.lost == 9
        far.close()
    types = [event.type for event in store.jobs.events(job.id, None)]
    assert types == ["queued", *2 * ["claimed", "requeued"], "claimed", "progress", "succeeded"]
    assert [event.type for event in store.jobs.events(keyed.id, None)][-2:] == ["cancelling", "cancelled"]
