"""What the reconciler puts right."""

import time
from dataclasses import replace
from datetime import timedelta

import pytest
from celery import Celery
from fixtures.store import INPUTS, OUT_OF_MEMORY, REQUEST, TENANT, claim, submit
from redis import Redis

from nextrapolate.schemas import JobState, Webhook
from nextrapolate_store.queue import TASK_NAME, celery_settings
from nextrapolate_store.records import JobRecord
from nextrapolate_store.retention import Retention
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quota


def impatient(settings: StoreSettings) -> Store:
    """Open a store whose leases end at once."""
    return Store.open(replace(settings, lease_seconds=0.01))


def send(settings: StoreSettings, job_ids: list[str]) -> None:
    """Send wake-ups as the service does."""
    with Celery("test", set_as_current=False) as sender:
        sender.conf.update(celery_settings(settings.redis_url))
        for job_id in job_ids:
            sender.send_task(TASK_NAME, args=[job_id])


def test_a_worker_that_stops_beating_loses_its_job(store_settings: StoreSettings) -> None:
    store = impatient(store_settings)
    job = submit(store)
    for attempt in range(1, 4):
        assert claim(store, job).attempt == attempt
        time.sleep(0.03)
        done = store.jobs.reconcile()
        assert (done.requeued, done.failed) == (((job.id,), ()) if attempt < 3 else ((), (job.id,)))
        assert done.wake == done.requeued
    error = store.jobs.get(TENANT, job.id).error
    assert error is not None
    assert (error.code, error.blame) == ("worker-lost", "server")
    assert store.statistics.read().lease_expired == 3
    store.close()


def test_a_job_that_comes_back_waits_from_then_on(store_settings: StoreSettings) -> None:
    store = impatient(store_settings)
    job = submit(store)
    held = claim(store, job)
    time.sleep(0.3)  # it runs, and nobody waits
    came = time.monotonic()
    store.jobs.release(job.id, held.fence, "the worker stops")
    assert store.statistics.read().queue_oldest_seconds <= time.monotonic() - came + 0.01
    claim(store, job)
    time.sleep(0.3)
    came = time.monotonic()
    assert store.jobs.reconcile().requeued == (job.id,)
    assert store.statistics.read().queue_oldest_seconds <= time.monotonic() - came + 0.01
    time.sleep(0.3)
    assert store.statistics.read().queue_oldest_seconds >= 0.3
    store.close()


def test_a_job_that_broken_workers_give_back_goes_on_waiting(store: Store) -> None:
    job = submit(store)
    for _ in range(3):
        time.sleep(0.1)
        store.jobs.release(job.id, claim(store, job).fence, "no GPU")
    assert store.statistics.read().queue_oldest_seconds >= 0.3


def test_a_job_that_comes_back_does_not_hide_that_others_wait(store_settings: StoreSettings) -> None:
    """It is first again, with a wait that has just begun."""
    store = impatient(store_settings)
    held = claim(store, submit(store))
    submit(store)
    time.sleep(0.3)
    store.jobs.give_up(held.job.id, held.fence, OUT_OF_MEMORY)
    assert store.statistics.read().queue_oldest_seconds >= 0.3
    store.close()


def test_the_last_error_that_is_known_is_told(store_settings: StoreSettings) -> None:
    store = impatient(store_settings)
    job = submit(store)
    store.jobs.give_up(job.id, claim(store, job).fence, OUT_OF_MEMORY)
    for _ in range(2):
        claim(store, job)
        time.sleep(0.03)
        store.jobs.reconcile()
    assert store.jobs.get(TENANT, job.id).error == OUT_OF_MEMORY
    store.close()


def test_a_worker_that_dies_while_it_cancels_is_not_waited_for(store_settings: StoreSettings) -> None:
    store = impatient(store_settings)
    job = submit(store)
    claim(store, job)
    store.jobs.cancel(TENANT, job.id)
    time.sleep(0.03)
    assert store.jobs.reconcile().cancelled == (job.id,)
    assert store.jobs.get(TENANT, job.id).state is JobState.CANCELLED
    store.close()


def test_a_lost_message_is_sent_again_but_not_every_time(store: Store) -> None:
    job = submit(store)
    assert store.jobs.reconcile().wake == ()
    assert store.jobs.reconcile(wake_after_seconds=0).wake == (job.id,)
    assert store.jobs.reconcile().wake == ()
    assert store.statistics.read().republished == 1


def test_what_the_brokers_list_explains_is_not_sent_again(
    store: Store, store_settings: StoreSettings
) -> None:
    """The list is Celery's own: this holds only while kombu names and fills it as the store believes."""
    waiting = [submit(store).id for _ in range(3)]
    send(store_settings, waiting[:2])
    assert len(store.jobs.reconcile(wake_after_seconds=0).wake) == 1


def test_a_job_given_back_is_woken_at_once_whatever_the_list_holds(
    store: Store, store_settings: StoreSettings
) -> None:
    job = submit(store)
    send(store_settings, [job.id] * 5)
    store.jobs.release(job.id, claim(store, job).fence, "stopped")
    assert store.jobs.reconcile().wake == (job.id,)


def test_a_job_given_up_rests_longer_each_time_before_it_is_woken(store_settings: StoreSettings) -> None:
    """Whatever was amiss, such as a Hub that is away, has time to pass; the list's length does not matter."""
    store, hour_ms = Store.open(replace(store_settings, lease_seconds=30)), 3_600_000
    job = submit(store)
    send(store_settings, [job.id] * 5)
    with Redis.from_url(store_settings.redis_url) as redis:
        for rest_ms in (10_000, 40_000):
            store.jobs.give_up(job.id, claim(store, job).fence, OUT_OF_MEMORY)
            redis.hincrby(f"next:job:{job.id}", "woken_at", 5_000 - rest_ms)
            assert store.jobs.reconcile(wake_after_seconds=0).wake == ()
            redis.hincrby(f"next:job:{job.id}", "woken_at", -5_000)
            assert store.jobs.reconcile().wake == (job.id,)
            assert store.jobs.reconcile().wake == ()
        redis.hset(f"next:job:{job.id}", "rest", rest_ms)
        redis.hincrby(f"next:job:{job.id}", "woken_at", hour_ms)
        assert store.jobs.reconcile().wake == (job.id,), "the clock was set back"
    store.close()


def test_jobs_that_rest_have_no_other_woken_that_waits_in_the_list(
    store: Store, store_settings: StoreSettings
) -> None:
    resting, waiting = submit(store), submit(store)
    store.jobs.give_up(resting.id, claim(store, resting).fence, OUT_OF_MEMORY)
    send(store_settings, [waiting.id])
    assert store.jobs.reconcile(wake_after_seconds=0).wake == ()


def test_two_reconcilers_do_no_more_than_one(store_settings: StoreSettings) -> None:
    first, second = impatient(store_settings), impatient(store_settings)
    job = submit(first)
    claim(first, job)
    time.sleep(0.03)
    assert first.jobs.reconcile().wake == (job.id,)
    assert second.jobs.reconcile() == replace(second.jobs.reconcile(), requeued=(), wake=())
    first.close()
    second.close()


def test_jobs_whose_record_is_gone_hold_up_no_other(store_settings: StoreSettings) -> None:
    """As a Redis that evicts leaves them: in the indexes of leases, of queued and of parked jobs."""
    store = impatient(store_settings)
    store.quotas.set("full", {Quota.RUNNING_JOBS: 1})
    with Redis.from_url(store_settings.redis_url) as redis:
        lost, dead = submit(store, tenant="lost"), submit(store, tenant="alive")
        claim(store, lost), claim(store, dead)
        waiting_lost, waiting = submit(store, tenant="lost"), submit(store, tenant="alive")
        running, parked_lost, parked = (submit(store, tenant="full") for _ in range(3))
        claim(store, running)
        assert [store.jobs.claim(job.id, worker="test") for job in (parked_lost, parked)] == [None, None]
        for job in (lost, waiting_lost, parked_lost):
            redis.delete(f"next:job:{job.id}")
        time.sleep(0.03)
        done = store.jobs.reconcile(wake_after_seconds=0)
        assert set(done.gone) == {lost.id, waiting_lost.id, parked_lost.id}
        assert set(done.requeued) == {dead.id, running.id}
        assert {dead.id, waiting.id} <= set(done.wake)
        while parked.id not in done.wake:
            done = store.jobs.reconcile()
            assert done.gone == ()
        assert redis.keys(f"next:job:{lost.id}") == []
    store.close()


def lose_records(store_settings: StoreSettings, jobs: list[JobRecord]) -> None:
    with Redis.from_url(store_settings.redis_url) as redis:
        for job in jobs:
            redis.delete(f"next:job:{job.id}")


@pytest.mark.parametrize("state", [None, JobState.QUEUED])
def test_jobs_whose_record_is_gone_are_in_no_list_and_take_no_quota(
    store: Store, store_settings: StoreSettings, state: JobState | None
) -> None:
    jobs = [submit(store) for _ in range(9)]
    lost, kept = [*jobs[:2], *jobs[4:]], jobs[2:4]
    lose_records(store_settings, lost)
    page, cursor = store.jobs.list(TENANT, limit=1, cursor=None, state=state)
    rest, end = store.jobs.list(TENANT, limit=1, cursor=cursor, state=state)
    assert ([job.id for job in page + rest], end) == ([kept[1].id, kept[0].id], None)
    assert store.jobs.list(TENANT, limit=9, cursor=None)[0] == page + rest
    assert store.quotas.usage(TENANT)[Quota.QUEUED_JOBS].used == len(kept)


def test_jobs_whose_record_is_gone_come_back_with_what_they_use(
    store: Store, store_settings: StoreSettings
) -> None:
    ended, running = submit(store), submit(store)
    store.jobs.cancel(TENANT, ended.id)
    store.recorder.record_ends()
    claim(store, running)
    before, events = store.jobs.get(TENANT, ended.id), store.jobs.events(ended.id, None)
    lose_records(store_settings, [ended, running])
    assert Store.rebuild(store_settings, add_missing=True).unreadable == ()
    assert store.jobs.get(TENANT, ended.id) == before
    assert store.jobs.events(ended.id, None) == events
    usage = store.quotas.usage(TENANT)
    assert (usage[Quota.QUEUED_JOBS].used, usage[Quota.RUNNING_JOBS].used) == (1, 0)


def test_a_job_that_ended_and_whose_record_is_gone_holds_up_no_sweep_and_no_webhook(
    store_settings: StoreSettings,
) -> None:
    retention = Retention(jobs=timedelta(milliseconds=1))
    store = Store.open(replace(store_settings, retention=retention))
    wanted = REQUEST.model_copy(update={"webhook": Webhook(url="https://example.org/")})
    lost, there = (
        store.jobs.submit(TENANT, wanted, INPUTS, idempotency_key=None, body_digest="").id for _ in range(2)
    )
    for job_id in (lost, there):
        store.jobs.cancel(TENANT, job_id)
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.delete(f"next:job:{lost}")
        assert [due.job.id for due in store.deliveries.claim(9)] == [there]
        time.sleep(0.01)
        assert store.sweeper.sweep().jobs == 1
        assert redis.exists(f"next:job:{lost}") == redis.zcard("next:ended") == 0
    store.close()


def test_a_raised_quota_does_not_bring_all_parked_jobs_back_at_once(
    store: Store, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis serves nobody else while a script runs."""
    monkeypatch.setattr("nextrapolate_store.jobs._JOBS_A_PASS", 2)
    store.quotas.set(TENANT, {Quota.RUNNING_JOBS: 0})
    parked = [submit(store).id for _ in range(5)]
    assert [store.jobs.claim(job_id, worker="test") for job_id in parked] == [None] * 5
    store.quotas.set(TENANT, {Quota.RUNNING_JOBS: 100})
    with Redis.from_url(store_settings.redis_url) as redis:
        for still_parked, woken in ((3, parked[:2]), (1, parked[2:4]), (0, parked[4:])):
            assert store.jobs.reconcile().wake == tuple(woken)
            assert redis.zcard(f"next:tenant-parked:{TENANT}") == still_parked
            for job_id in woken:
                assert store.jobs.claim(job_id, worker="test")


def test_a_clock_that_was_set_back_keeps_no_dead_workers_lease_and_no_lost_message(
    store_settings: StoreSettings,
) -> None:
    """What was written an hour ahead of Redis' clock is what a step back of an hour leaves."""
    store, hour_ms = impatient(store_settings), 3_600_000
    dead, unsent = submit(store), submit(store)
    claim(store, dead)
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.zincrby("next:leases", hour_ms, dead.id)
        redis.hincrby(f"next:job:{unsent.id}", "woken_at", hour_ms)
        assert store.jobs.reconcile().wake == (unsent.id,)
        assert store.jobs.get(TENANT, dead.id).state is JobState.RUNNING
        time.sleep(0.03)
        assert store.jobs.reconcile().requeued == (dead.id,)
    store.close()
