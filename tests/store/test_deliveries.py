"""Webhooks that are due: a few of each tenant at a time, and none is forgotten over it."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.lossy_redis import lossy_redis
from fixtures.store import INPUTS, REQUEST
from redis import Redis

from nextrapolate.schemas import Webhook
from nextrapolate_store.records import DueDelivery
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

AT_ONCE = 4


def end_jobs(store: Store, tenant: str, count: int) -> list[str]:
    """End so many jobs of the tenant that have a webhook."""
    request = REQUEST.model_copy(update={"webhook": Webhook(url="https://example.org/")})
    jobs = []
    for _ in range(count):
        job = store.jobs.submit(tenant, request, INPUTS, idempotency_key=None, body_digest="")
        store.jobs.cancel(tenant, job.id)
        jobs.append(job.id)
    return jobs


def told(store: Store, due: DueDelivery) -> bool:
    return store.deliveries.settle(due, status=200, error=None, wait_seconds=None)


def tenants(due: list[DueDelivery]) -> list[str]:
    return [one.job.tenant for one in due]


def test_a_tenant_with_many_lets_others_pass(store: Store) -> None:
    end_jobs(store, "many", 3 * AT_ONCE)
    end_jobs(store, "few", 2)
    assert tenants(store.deliveries.claim(99)) == ["many"] * AT_ONCE + ["few"] * 2
    assert store.deliveries.claim(99) == []


def test_each_that_is_told_makes_room_for_the_next_and_all_are_told_once(store: Store) -> None:
    jobs = end_jobs(store, "many", 3 * AT_ONCE)
    waiting, seen = store.deliveries.claim(99), []
    while waiting:
        assert len(waiting) <= AT_ONCE
        due = waiting.pop(0)
        seen.append((due.job.id, due.attempt))
        assert told(store, due)
        waiting += store.deliveries.claim(99)
    assert sorted(seen) == sorted((job, 1) for job in jobs)


def test_a_retry_waits_its_time_and_makes_room(store: Store) -> None:
    end_jobs(store, "many", AT_ONCE + 1)
    failed, *_ = store.deliveries.claim(99)
    assert store.deliveries.settle(failed, status=500, error="it answered 500", wait_seconds=3600)
    (following,) = store.deliveries.claim(99)
    assert following.job.id != failed.job.id
    assert following.attempt == 1


@pytest.mark.parametrize("limit", [0, 1])
def test_no_more_are_taken_than_asked_for(store: Store, limit: int) -> None:
    end_jobs(store, "many", 3)
    assert len(store.deliveries.claim(limit)) == limit
    assert len(store.deliveries.claim(99)) == 3 - limit


def test_those_of_a_process_that_died_are_told_again(store: Store) -> None:
    end_jobs(store, "many", AT_ONCE + 1)
    lost = store.deliveries.claim(99, hold_seconds=0.05)
    assert store.deliveries.claim(0) == []
    time.sleep(0.06)
    again = store.deliveries.claim(99)
    assert len(again) == AT_ONCE
    late = next(due for due in lost if due.job.id in {one.job.id for one in again})
    assert not told(store, late)
    for due in again:
        assert told(store, due)
    assert len(store.deliveries.claim(99)) == 1


def test_a_lost_reply_takes_none_away(store: Store, store_settings: StoreSettings, tmp_path: Path) -> None:
    jobs = end_jobs(store, "many", AT_ONCE)
    with lossy_redis(store_settings.redis_url, tmp_path) as proxy:
        unlucky = Store.open(replace(store_settings, redis_url=proxy.url))
        assert unlucky.deliveries.claim(0) == []  # so that Redis knows the script
        proxy.lose_next_reply()
        due = unlucky.deliveries.claim(99)
        assert proxy.lost == 1
        assert sorted((one.job.id, one.attempt) for one in due) == sorted((job, 1) for job in jobs)
        unlucky.close()


def test_a_clock_that_was_set_back_holds_up_none_of_a_process_that_died(
    store: Store, store_settings: StoreSettings
) -> None:
    """What was written an hour ahead of Redis' clock is what a step back of an hour leaves."""
    jobs = end_jobs(store, "many", AT_ONCE)
    store.deliveries.claim(99, hold_seconds=0.05)
    with Redis.from_url(store_settings.redis_url) as redis:
        for job in jobs:
            for index in ("next:deliveries", "next:tenant-telling:many"):
                redis.zincrby(index, 3_600_000, job)
    jobs += end_jobs(store, "many", 1)
    assert store.deliveries.claim(99, hold_seconds=0.05) == []
    time.sleep(0.06)
    again = store.deliveries.claim(99)
    assert len(again) == AT_ONCE
    for due in again:
        assert told(store, due)
    assert {due.job.id for due in again + store.deliveries.claim(99)} == set(jobs)


def test_a_late_answer_counts_while_the_webhook_waits_to_be_told_again(store: Store) -> None:
    end_jobs(store, "many", 2 * AT_ONCE)
    late = store.deliveries.claim(99, hold_seconds=0.05)
    time.sleep(0.06)
    now = {due.job.id for due in store.deliveries.claim(99)}
    for due in late:
        assert told(store, due) == (due.job.id not in now)
    assert not {due.job.id for due in late} & {due.job.id for due in store.deliveries.claim(99)}


def test_nothing_of_it_stays_when_all_are_told(store: Store, store_settings: StoreSettings) -> None:
    end_jobs(store, "many", 2 * AT_ONCE)
    while due := store.deliveries.claim(99):
        for one in due:
            assert told(store, one)
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:
        assert [name for name in redis.scan_iter("next:*") if "told" in name or "telling" in name] == [
            "next:told"
        ]
