"""Quotas: never exceeded however many ask at once, and counted right whatever dies in between."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Barrier

import pytest
from fixtures.redis import running
from fixtures.store import ARTIFACTS, INPUTS, REQUEST, TENANT, claim, submit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from nextrapolate.schemas import FileInfo, SeriesCreate
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_store import quotas as quotas_module
from nextrapolate_store.blobs import BlobStore, uncounted
from nextrapolate_store.errors import QuotaExceeded
from nextrapolate_store.records import JobRecord
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quota, Quotas, Usage

AT_ONCE = 20
LIMIT = 7
HOLD_ENDS = f"next:tenant-hold-ends:{TENANT}"
EVERYTHING_LIMITED = Quotas(bytes=LIMIT * 100, series=LIMIT, queued_jobs=LIMIT, running_jobs=1, uploads=LIMIT)


@pytest.fixture
def small(store: Store) -> Store:
    """A store in which nobody may have more than seven of anything."""
    store.quotas.set_defaults(EVERYTHING_LIMITED)
    return store


def all_at_once(ask: Callable[[int], object]) -> list[QuotaExceeded]:
    """Ask from twenty threads at the same moment; gives the refusals."""
    barrier = Barrier(AT_ONCE)
    refusals: list[QuotaExceeded] = []

    def one(number: int) -> None:
        barrier.wait()
        try:
            ask(number)
        except QuotaExceeded as refusal:
            refusals.append(refusal)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(one, range(AT_ONCE)):
            pass
    return refusals


def files(settings: StoreSettings, pattern: str) -> list[Path]:
    return [path for path in settings.data_dir.glob(pattern) if path.is_file()]


def test_series_at_once_fill_the_quota_and_no_more(small: Store, store_settings: StoreSettings) -> None:
    refusals = all_at_once(lambda number: small.series.create(TENANT, SeriesCreate(name=str(number))))
    assert len(refusals) == AT_ONCE - LIMIT
    assert len(small.series.list(TENANT, limit=100, cursor=None)[0]) == LIMIT
    assert len(files(store_settings, "series/*/series.json")) == LIMIT
    assert {(refusal.quota, refusal.usage) for refusal in refusals} == {(Quota.SERIES, Usage(LIMIT, LIMIT))}
    small.series.create("other", SeriesCreate(name="theirs"))


@pytest.mark.parametrize("with_key", [True, False])
def test_jobs_at_once_fill_the_queue_and_no_more(
    small: Store, store_settings: StoreSettings, with_key: bool
) -> None:
    refusals = all_at_once(lambda number: submit(small, key=f"key-{number}" if with_key else None))
    assert len(refusals) == AT_ONCE - LIMIT
    assert len(small.jobs.list(TENANT, limit=100, cursor=None)[0]) == LIMIT
    assert len(files(store_settings, "jobs/*/job.json")) == LIMIT
    assert "submit more as they run" in str(refusals[0])
    assert small.quotas.usage(TENANT)[Quota.QUEUED_JOBS] == Usage(LIMIT, LIMIT)


def test_a_full_queue_still_knows_its_jobs_and_takes_another_as_soon_as_one_runs(small: Store) -> None:
    jobs = [submit(small, key=str(number)) for number in range(LIMIT)]
    assert submit(small, key="3").id == jobs[3].id
    with pytest.raises(QuotaExceeded):
        submit(small, key="new")
    claim(small, jobs[0])
    assert submit(small, key="new").id not in {job.id for job in jobs}


@pytest.mark.parametrize("with_key", [True, False])
def test_jobs_that_have_ended_count_until_they_are_swept(
    small: Store, store_settings: StoreSettings, with_key: bool
) -> None:
    small.quotas.set(TENANT, {Quota.KEPT_JOBS: 2})
    jobs = [submit(small, key=str(number) if with_key else None) for number in range(2)]
    for job in jobs:
        small.jobs.cancel(TENANT, job.id)
    with pytest.raises(QuotaExceeded, match=r"2 of its jobs are kept, .* wait until the oldest are swept"):
        submit(small, key="new" if with_key else None)
    assert small.quotas.usage(TENANT)[Quota.KEPT_JOBS] == Usage(2, 2)
    small.recorder.record_ends()
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.flushall()
    assert Store.rebuild(store_settings, add_missing=False).ended == 2
    assert small.quotas.usage(TENANT)[Quota.KEPT_JOBS] == Usage(2, 2)
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.zadd("next:ended", {jobs[0].id: 0})
    small.sweeper.sweep()
    submit(small, key="new" if with_key else None)
    assert small.quotas.usage(TENANT)[Quota.KEPT_JOBS] == Usage(2, 2)


def test_uploads_at_once_fill_the_quota_and_no_more(small: Store) -> None:
    barrier = Barrier(AT_ONCE)

    def upload(number: int) -> None:
        with small.blobs.upload(TENANT):
            barrier.wait()

    refusals = all_at_once(lambda number: upload_or_wait(upload, number, barrier))
    assert len(refusals) == AT_ONCE - LIMIT
    assert {refusal.quota for refusal in refusals} == {Quota.UPLOADS}
    assert small.quotas.usage(TENANT)[Quota.UPLOADS] == Usage(0, LIMIT)


def upload_or_wait(upload: Callable[[int], None], number: int, barrier: Barrier) -> None:
    """Wait for the others even where it was refused: all of them are under way at the same time."""
    try:
        upload(number)
    except QuotaExceeded:
        barrier.wait()
        raise


def test_files_at_once_fill_the_bytes_and_no_more(small: Store, store_settings: StoreSettings) -> None:
    small.quotas.set(TENANT, {Quota.UPLOADS: AT_ONCE})
    refusals = all_at_once(lambda number: small.blobs.put_bytes(TENANT, b"%100d" % number))
    assert len(refusals) == AT_ONCE - LIMIT
    kept = files(store_settings, "blobs/**/*")
    assert sum(path.stat().st_size for path in kept) == LIMIT * 100
    assert small.quotas.usage(TENANT)[Quota.BYTES] == Usage(LIMIT * 100, LIMIT * 100)


@settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    uploads=st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 300), st.booleans(), st.booleans()), max_size=12
    )
)
def test_what_is_counted_is_what_is_there(
    small: Store, store_settings: StoreSettings, uploads: list[tuple[int, int, bool, bool]]
) -> None:
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.delete(f"next:tenant-bytes:{TENANT}", f"next:tenant-blobs:{TENANT}")
    for path in files(store_settings, "blobs/**/*"):
        path.unlink()
    stored: dict[bytes, int] = {}
    for which, size, announced, broken in uploads:
        content = bytes([which]) * size
        info = FileInfo(bytes=size, sha256=hashlib.sha256(content).hexdigest())
        known = (info.bytes, info.sha256) if announced else (0, None)
        # Who does not say what is coming has to have room for it, even where it is there already.
        fits = (announced and content in stored) or sum(stored.values()) + size <= LIMIT * 100
        refused = not fits and (announced or not broken or size // 2 > LIMIT * 100 - sum(stored.values()))
        expectation = pytest.raises(QuotaExceeded) if refused else nullcontext()
        with expectation, small.blobs.upload(TENANT, *known) as upload:
            upload.write(content[: size // 2])
            if not broken:
                upload.write(content[size // 2 :])
                upload.commit()
                stored[content] = size
        usage = small.quotas.usage(TENANT)
        assert usage[Quota.BYTES].used == sum(stored.values())
        assert usage[Quota.UPLOADS].used == 0
    assert sum(path.stat().st_size for path in files(store_settings, "blobs/**/*")) == sum(stored.values())


def test_an_upload_that_outgrows_the_quota_is_cut_off_and_leaves_nothing(
    small: Store, store_settings: StoreSettings
) -> None:
    with small.blobs.upload(TENANT) as upload:
        for _ in range(7):
            upload.write(bytes(100))
        with pytest.raises(QuotaExceeded, match="0 of the 700 bytes it may store are in use"):
            upload.write(b"x")
        assert upload.bytes_written == 700
    assert files(store_settings, "blobs/**/*") == []
    assert small.quotas.usage(TENANT)[Quota.BYTES] == Usage(0, 700)


def test_what_is_stored_takes_no_more_room_and_nothing_beyond_its_size_passes_for_it(small: Store) -> None:
    stored = small.blobs.put_bytes(TENANT, bytes(600))
    with small.blobs.upload(TENANT, 600, stored.sha256) as upload:
        upload.write(bytes(600))
        assert small.quotas.usage(TENANT)[Quota.BYTES] == Usage(600, 700)
        upload.write(bytes(100))
        with pytest.raises(QuotaExceeded, match="600 of the 700 bytes it may store are in use"):
            upload.write(b"x")
    with pytest.raises(QuotaExceeded), small.blobs.upload(TENANT, 1000, stored.sha256):
        pass


def test_results_count_until_they_are_swept(small: Store, store_settings: StoreSettings) -> None:
    job = submit(small)
    size = sum(info.bytes for info in ARTIFACTS.values())
    assert small.jobs.commit(job.id, claim(small, job).fence, ARTIFACTS)
    assert small.quotas.usage(TENANT)[Quota.BYTES].used == size
    small.quotas.set(TENANT, {Quota.BYTES: size})
    with pytest.raises(QuotaExceeded, match="of the 2 bytes it may store are in use"):
        submit(small)
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.zadd("next:ended", {job.id: 0})
    small.sweeper.sweep()
    assert small.quotas.usage(TENANT)[Quota.BYTES].used == 0
    submit(small)


def test_what_a_job_fetches_counts_from_its_submit_on(small: Store, store_settings: StoreSettings) -> None:
    def submit_fetching(count: int) -> JobRecord:
        return small.jobs.submit(
            TENANT, REQUEST, INPUTS, idempotency_key=None, body_digest="", bytes_to_fetch=count
        )

    fetching, dropped = submit_fetching(500), submit_fetching(100)
    assert small.quotas.usage(TENANT)[Quota.BYTES].used == 600
    with pytest.raises(QuotaExceeded, match="600 of the 700 bytes"):
        submit_fetching(100)
    BlobStore(store_settings.data_dir, uncounted).put_bytes(TENANT, bytes(450))  # as the worker's child does
    assert small.jobs.commit(fetching.id, claim(small, fetching).fence, ARTIFACTS)
    small.jobs.cancel(TENANT, dropped.id)
    for _ in range(2):  # a recorder that was killed comes back to the same jobs
        small.recorder.record_ends()
        assert small.quotas.usage(TENANT)[Quota.BYTES].used == 450 + 2
        with Redis.from_url(store_settings.redis_url) as redis:
            redis.sadd("next:unrecorded", fetching.id, dropped.id)


DIES_UPLOADING = """
import sys, time
from pathlib import Path
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

store = Store.open(StoreSettings(sys.argv[1], Path(sys.argv[2])))
with store.blobs.upload("default", expected_bytes=700) as upload:
    upload.write(b"x")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_process_that_is_killed_holds_nothing_for_long(small: Store, store_settings: StoreSettings) -> None:
    data_dir = str(store_settings.data_dir)
    arguments = [sys.executable, "-c", DIES_UPLOADING, store_settings.redis_url, data_dir]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(QuotaExceeded, match="700 of the 700 bytes"):
            small.blobs.put_bytes(TENANT, b"x")
        process.kill()
    with Redis.from_url(store_settings.redis_url) as redis:
        (hold,) = redis.zrange(HOLD_ENDS, 0, -1)
        redis.zincrby(HOLD_ENDS, -120_000, hold)  # as if two minutes had passed
    assert small.quotas.usage(TENANT)[Quota.UPLOADS] == Usage(0, LIMIT)
    small.blobs.put_bytes(TENANT, bytes(700))


def test_a_clock_that_was_set_back_keeps_no_dead_uploads_hold(
    small: Store, store_settings: StoreSettings
) -> None:
    """What was written an hour ahead of Redis' clock is what a step back of an hour leaves."""
    small.quotas.hold(TENANT, "dead", {Quota.UPLOADS: 1})
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.zincrby(HOLD_ENDS, 3_600_000, "dead")
        assert small.quotas.usage(TENANT)[Quota.UPLOADS].used == 1
        seconds, _ = redis.time()
        assert 0 < redis.zscore(HOLD_ENDS, "dead") / 1000 - seconds < 65


def test_a_redis_that_is_killed_forgets_no_count(tmp_path: Path) -> None:
    own = EmbeddedRedis.prepare(find_redis_server(None), tmp_path / "redis")
    with running(own) as (_, process):
        store = Store.open(StoreSettings(own.url, tmp_path / "data"))
        store.series.create(TENANT, SeriesCreate(name="run", lora_config={"r": 2}))
        job = submit(store, key="1")
        assert store.jobs.commit(job.id, claim(store, job).fence, ARTIFACTS)
        store.blobs.put_bytes(TENANT, bytes(100))
        counted = store.quotas.usage(TENANT)
        store.quotas.hold(TENANT, "of nobody soon", {Quota.UPLOADS: 1, Quota.BYTES: 100})
        process.kill()
        process.wait()
        with running(own):
            assert store.quotas.usage(TENANT) == counted
            assert counted[Quota.BYTES].used == sum(store.blobs.stored(TENANT).values()) + 2
            store.close()


def test_an_upload_that_goes_on_keeps_its_hold(
    small: Store, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas_module, "_RENEW_SECONDS", 0.0)
    with (
        small.blobs.upload(TENANT, expected_bytes=100) as upload,
        Redis.from_url(store_settings.redis_url) as redis,
    ):
        ((hold, end),) = redis.zrange(HOLD_ENDS, 0, -1, withscores=True)
        redis.zincrby(HOLD_ENDS, -30_000, hold)  # as if half a minute had passed
        upload.write(b"x")
        assert redis.zscore(HOLD_ENDS, hold) >= end
        assert small.quotas.usage(TENANT)[Quota.BYTES].used == 100


def test_what_was_stored_and_not_counted_is_counted_by_the_next_sweep(
    store: Store, store_settings: StoreSettings
) -> None:
    counted = store.blobs.put_bytes(TENANT, b"counted")
    BlobStore(store_settings.data_dir, uncounted).put_bytes(TENANT, b"its process died in between")
    assert store.quotas.usage(TENANT)[Quota.BYTES].used == counted.bytes
    store.sweeper.sweep()
    assert store.quotas.usage(TENANT)[Quota.BYTES].used == 7 + 27
    for path in files(store_settings, "blobs/**/*"):
        if path.stat().st_size == 27:
            os.utime(path, (0, 0))
    store.sweeper.sweep()
    assert store.quotas.usage(TENANT)[Quota.BYTES].used == 7


def test_after_a_rebuild_all_is_counted_again(store: Store, store_settings: StoreSettings) -> None:
    store.series.create(TENANT, SeriesCreate(name="run", lora_config={"r": 2}))
    job = submit(store)
    assert store.jobs.commit(job.id, claim(store, job).fence, ARTIFACTS)
    store.recorder.record_ends()
    before = store.quotas.usage(TENANT)
    assert before[Quota.BYTES].used > 2
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.flushall()
    Store.rebuild(store_settings, add_missing=False)
    store.sweeper.sweep()
    assert store.quotas.usage(TENANT) == before


def test_a_tenant_with_enough_running_jobs_lets_others_pass(small: Store) -> None:
    first, second, third = (submit(small) for _ in range(3))
    theirs = submit(small, tenant="other")
    held = claim(small, first)
    assert small.jobs.claim(third.id, worker="test") is None
    assert small.jobs.claim(second.id, worker="test") is None
    assert small.jobs.claim(theirs.id, worker="test") is not None
    parked = small.jobs.events(second.id, None)[-1]
    assert (parked.type, parked.state) == ("progress", "queued")
    assert parked.message == "waits: its tenant's maximum of running jobs (1) is reached"
    assert small.jobs.reconcile().wake == ()
    assert small.jobs.commit(first.id, held.fence, ARTIFACTS)
    assert small.jobs.reconcile().wake == (second.id,)
    claim(small, second)
    small.jobs.cancel(TENANT, third.id)
    assert small.jobs.reconcile().wake == ()


def test_a_raised_quota_is_felt_at_once(small: Store) -> None:
    jobs = [submit(small) for _ in range(3)]
    claim(small, jobs[0])
    assert small.jobs.claim(jobs[1].id, worker="test") is None
    assert small.jobs.claim(jobs[2].id, worker="test") is None
    small.quotas.set(TENANT, {Quota.RUNNING_JOBS: 3})
    assert set(small.jobs.reconcile().wake) == {jobs[1].id, jobs[2].id}


def test_a_tenant_may_have_quotas_of_its_own(small: Store) -> None:
    small.quotas.set(TENANT, {Quota.SERIES: 8, Quota.BYTES: 0})
    assert small.quotas.usage(TENANT)[Quota.SERIES].limit == 8
    assert small.quotas.usage("other")[Quota.SERIES].limit == LIMIT
    with pytest.raises(QuotaExceeded) as refused:
        small.blobs.put_bytes(TENANT, b"x")
    assert "tenants set default --bytes N" in str(refused.value)
    small.quotas.reset(TENANT)
    assert small.quotas.usage(TENANT) == small.quotas.usage("other")
    with pytest.raises(ValueError, match="give 0 or more"):
        small.quotas.set(TENANT, {Quota.SERIES: -1})
    with pytest.raises(ValueError, match="not the name of a tenant"):
        small.quotas.set("a/b", {Quota.SERIES: 1})


def test_quotas_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Quotas.from_environment() == Quotas()
    monkeypatch.setenv("NEXTRAPOLATE_QUOTA_BYTES", "1000")
    monkeypatch.setenv("NEXTRAPOLATE_QUOTA_QUEUED_JOBS", "0")
    assert Quotas.from_environment() == Quotas(bytes=1000, queued_jobs=0)
    monkeypatch.setenv("NEXTRAPOLATE_QUOTA_BYTES", "1.5GiB")
    assert Quotas.from_environment().bytes == 3 << 29


def test_what_the_environment_says_can_be_written_to_redis(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for quota in Quota:
        monkeypatch.setenv(f"NEXTRAPOLATE_QUOTA_{quota.upper()}", "1000")
    store.quotas.set_defaults(Quotas.from_environment())
    assert {use.limit for use in store.quotas.usage("anybody").values()} == {1000}


def test_holding_room_waits_for_no_disk(store: Store, store_settings: StoreSettings) -> None:
    with Redis.from_url(store_settings.redis_url) as redis:
        written = redis.info("persistence")["aof_current_size"]
        for _ in range(20):
            with store.quotas.room(TENANT, 100) as room:
                room.cover(200)
        assert redis.info("persistence")["aof_current_size"] == written
