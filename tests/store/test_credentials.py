"""What callers lend to their jobs: kept for as long as it serves, and no longer."""

import os
import time

from fixtures.store import INPUTS, REQUEST, TENANT
from redis import Redis

from nextrapolate.schemas import JobRequest, Webhook
from nextrapolate_store.credentials import Credential
from nextrapolate_store.records import JobRecord
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

TOKEN, SECRET = "hf_token", "whsec_c2VjcmV0"
SIGNED: JobRequest = REQUEST.model_copy(update={"webhook": Webhook(url="https://example.org/")})


def submit(store: Store) -> JobRecord:
    """Submit a job that was lent a token, and whose webhook is to be signed."""
    lent: dict[Credential, str] = {"hub-token": TOKEN, "webhook-secret": SECRET}
    return store.jobs.submit(TENANT, SIGNED, INPUTS, idempotency_key=None, body_digest="", credentials=lent)


def kept(store: Store, job: JobRecord) -> list[str | None]:
    return [store.credentials.get(job.id, "hub-token"), store.credentials.get(job.id, "webhook-secret")]


def test_a_secret_is_kept_until_its_webhook_is_through_however_many_are_told_before_it(store: Store) -> None:
    jobs = [submit(store) for _ in range(6)]
    for job in jobs:
        store.jobs.cancel(TENANT, job.id)
    told = store.deliveries.claim(64)
    assert 0 < len(told) < len(jobs)
    store.deliveries.settle(told[0], status=500, error="it answered 500", wait_seconds=3600)
    store.deliveries.settle(told[1], status=204, error=None, wait_seconds=None)
    store.credentials.forget_over()
    for job in jobs:
        assert kept(store, job) == [None, None if job.id == told[1].job.id else SECRET]


def test_what_belongs_to_a_job_that_redis_has_lost_is_kept_until_its_records_go(
    store: Store, store_settings: StoreSettings
) -> None:
    waiting, ended = submit(store), submit(store)
    store.jobs.cancel(TENANT, ended.id)
    store.recorder.record_ends()
    with Redis.from_url(store_settings.redis_url) as redis:
        for job in (waiting, ended):
            redis.delete(f"next:job:{job.id}")
    for path in (store_settings.data_dir / "credentials").iterdir():
        os.utime(path, (0, time.time() - 3600))
    store.credentials.forget_over()
    Store.rebuild(store_settings, add_missing=True)
    store.credentials.forget_over()
    assert kept(store, waiting) == [TOKEN, SECRET]
    assert kept(store, ended) == [None, SECRET]  # its webhook is told now
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.delete(f"next:job:{waiting.id}")
    store.job_folders.discard(waiting.id)  # as the sweeper does, once it is older than jobs are kept
    store.credentials.forget_over()
    assert kept(store, waiting) == [None, None]


def test_a_job_knows_that_its_webhook_is_signed_also_after_a_rebuild(
    store: Store, store_settings: StoreSettings
) -> None:
    waiting, ended = submit(store), submit(store)
    plain = store.jobs.submit(TENANT, SIGNED, INPUTS, idempotency_key=None, body_digest="")
    store.jobs.cancel(TENANT, ended.id)
    store.recorder.record_ends()
    for _ in range(2):
        signed = {job.id: store.jobs.get(TENANT, job.id).webhook_is_signed for job in (waiting, ended, plain)}
        assert signed == {waiting.id: True, ended.id: True, plain.id: False}
        with Redis.from_url(store_settings.redis_url) as redis:
            redis.flushall()
        Store.rebuild(store_settings, add_missing=False)
