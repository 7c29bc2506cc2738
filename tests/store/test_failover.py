"""A replica takes over that lacks the last moments: no two claims share a fence, no job has two ends."""

import hashlib
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import cast

import pytest
from fixtures.kills import dies_after
from fixtures.store import OUT_OF_MEMORY, TENANT, claim, submit
from redis import Redis

from nextrapolate.schemas import FileInfo, JobState
from nextrapolate_store.records import Claim, JobRecord
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quota

REPORT = "report.json"


@pytest.fixture
def redis(store_settings: StoreSettings) -> Iterator[Redis]:
    with Redis.from_url(store_settings.redis_url) as redis:
        yield redis


def remember(redis: Redis) -> Callable[[], None]:
    """Note all of Redis; gives what brings it back, as a replica that has heard of nothing since."""
    kept = {name: redis.dump(name) for name in redis.scan_iter()}

    def fail_over() -> None:
        redis.flushall()
        for name, value in kept.items():
            redis.restore(name, 0, cast(bytes, value))

    return fail_over


def commit(store: Store, held: Claim, text: str) -> bool:
    """Do what a worker does with its results."""
    content = text.encode()
    (store.job_folders.result_folder(held.job.id, held.fence) / REPORT).write_bytes(content)
    info = FileInfo(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    return store.jobs.commit(held.job.id, held.fence, {REPORT: info})


def result(store: Store, job: JobRecord) -> str:
    return store.job_folders.result_path(store.jobs.get(TENANT, job.id), REPORT).read_text()


def test_a_claim_that_was_forgotten_shares_its_fence_with_no_other(store: Store, redis: Redis) -> None:
    job = submit(store)
    fail_over = remember(redis)
    forgotten = claim(store, job)
    fail_over()
    time.sleep(0.002)
    current = claim(store, job)
    assert current.fence > forgotten.fence
    assert not commit(store, forgotten, "by the worker that nobody knows any more")
    assert commit(store, current, "by the other")
    assert result(store, job) == "by the other"


def test_a_job_that_had_ended_is_not_run_again(store: Store, redis: Redis) -> None:
    job = submit(store)
    fail_over = remember(redis)
    assert commit(store, claim(store, job), "first")
    store.recorder.record_ends()
    ended = store.jobs.get(TENANT, job.id)
    fail_over()
    assert store.jobs.claim(job.id, worker="test") is None
    assert store.jobs.get(TENANT, job.id) == ended


@pytest.mark.parametrize("second", ["succeeded", "failed", "cancelled"])
def test_of_two_ends_the_one_that_was_recorded_first_stays_whatever_is_killed(
    store: Store, store_settings: StoreSettings, redis: Redis, second: str
) -> None:
    """The first is recorded by a process that was slow, while the second is being made already."""
    for steps in count():
        job = submit(store)
        fail_over = remember(redis)
        assert commit(store, claim(store, job), "first")
        ended = store.jobs.get(TENANT, job.id)
        end = remember(redis)
        fail_over()
        time.sleep(0.002)
        current = claim(store, job)
        again = remember(redis)
        end()
        store.recorder.record_ends()
        again()
        if second == "succeeded":
            assert commit(store, current, "second, and longer")
        elif second == "failed":
            assert store.jobs.fail(job.id, current.fence, OUT_OF_MEMORY)
        else:
            store.jobs.cancel(TENANT, job.id)
            assert store.jobs.confirm_cancelled(job.id, current.fence)
        died = dies_after(steps, lambda: store.recorder.record_ends())
        store.recorder.record_ends()
        assert store.jobs.get(TENANT, job.id) == ended
        assert result(store, job) == "first"
        folder = store_settings.data_dir / "jobs" / job.id
        kept = {path.name for path in folder.iterdir() if not path.name.startswith(".")}  # the rest is swept
        assert kept == {"job.json", "end.json", str(ended.fence)}
        assert redis.scard("next:unrecorded") == 0
        if not died:
            break
    assert steps > 5, "it was killed in between"
    assert store.quotas.usage(TENANT)[Quota.BYTES].used == len("first") * (steps + 1)
    assert store.jobs.list(TENANT, limit=1, cursor=None, state=JobState.RUNNING)[0] == []
