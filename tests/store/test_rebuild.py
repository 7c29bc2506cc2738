"""Redis loses everything, and comes back from the records on disk."""

import json
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from fixtures.kills import dies_after
from fixtures.store import ARTIFACTS, INPUTS, OUT_OF_MEMORY, REQUEST, TENANT, claim, submit
from redis import Redis

from nextrapolate.schemas import AS_KEPT, CheckpointFile, JobCreate, JobState, SeriesCreate, Webhook
from nextrapolate_store.errors import (
    FileTaken,
    IdempotencyMismatch,
    KeyRevoked,
    StoreIncompatible,
    StoreLost,
    StoreNotEmpty,
)
from nextrapolate_store.keys import KeyText, Scope, new_key
from nextrapolate_store.records import Beat
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quota

MODEL: CheckpointFile = "adapter_model.safetensors"


@pytest.fixture
def redis(store_settings: StoreSettings) -> Iterator[Redis]:
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:
        yield redis


def test_an_empty_redis_beside_a_full_folder_is_not_taken_for_a_new_start(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    submit(store)
    redis.flushall()
    for open_again in (lambda: Store.open(store_settings), store.ping):
        with pytest.raises(StoreLost, match="nextrapolate-server rebuild"):
            open_again()
    Store.rebuild(store_settings, add_missing=False)
    store.ping()
    Store.open(store_settings).close()


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.keys.create("lab", [Scope.READ]),
        lambda store: store.quotas.set("lab", {Quota.SERIES: 3}),
    ],
)
def test_a_folder_with_nothing_but_keys_or_quotas_is_a_full_one(
    store: Store, store_settings: StoreSettings, redis: Redis, write: Callable[[Store], object]
) -> None:
    write(store)
    redis.flushall()
    with pytest.raises(StoreLost, match="nextrapolate-server rebuild"):
        Store.open(store_settings)


def test_nothing_is_rebuilt_over_data_that_is_there(store: Store, store_settings: StoreSettings) -> None:
    job = submit(store)
    with pytest.raises(StoreNotEmpty, match="--add-missing"):
        Store.rebuild(store_settings, add_missing=False)
    done = Store.rebuild(store_settings, add_missing=True)
    assert (done.ended, done.queued, done.series) == (0, 0, 0)
    assert store.jobs.get(TENANT, job.id) == job


def test_data_of_another_version_is_left_alone(store_settings: StoreSettings, redis: Redis) -> None:
    redis.set("next:schema_version", 99)
    with pytest.raises(StoreIncompatible):
        Store.rebuild(store_settings, add_missing=True)


def test_a_rebuild_that_is_killed_before_any_step_counts_for_nothing_and_is_made_again(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    jobs = [submit(store, key=str(number)) for number in range(4)]
    for job in jobs[:2]:
        store.jobs.commit(job.id, claim(store, job).fence, ARTIFACTS)
    store.recorder.record_ends()
    series = store.series.create(TENANT, SeriesCreate(name="run"))
    info = store.blobs.put_bytes(TENANT, b"weights")
    store.series.put_file(TENANT, series.id, 10, MODEL, info)
    whole = store.series.get(TENANT, series.id)
    key, text = store.keys.create("lab", [Scope.READ])
    ended = [store.jobs.get(TENANT, job.id) for job in jobs[:2]]

    def rebuild() -> None:
        Store.rebuild(store_settings, add_missing=False)

    for steps in count():
        redis.flushall()
        finished = not dies_after(steps, rebuild)
        if not finished:
            with pytest.raises(StoreLost):
                Store.open(store_settings)
            rebuild()
        listed, _ = store.jobs.list(TENANT, limit=10, cursor=None, state=JobState.SUCCEEDED)
        assert [store.jobs.get(TENANT, job.id) for job in reversed(listed)] == ended
        assert set(redis.zrange("next:queued", 0, -1)) == {job.id for job in jobs[2:]}
        assert store.series.get(TENANT, series.id) == whole
        assert store.keys.verify(text) == key
        if finished:
            break
    assert steps > 10, "it was killed in between"


def test_an_older_backup_of_redis_is_brought_up_to_date(store: Store, store_settings: StoreSettings) -> None:
    """The backup knows one job as running, which has ended since, and has never heard of the other."""
    job = submit(store)
    fence = claim(store, job).fence
    with Redis.from_url(store_settings.redis_url) as redis:
        backup = {name: redis.dump(name) for name in redis.scan_iter()}
        missing = submit(store)
        assert store.jobs.commit(job.id, fence, ARTIFACTS)
        ended = store.jobs.get(TENANT, job.id)
        store.recorder.record_ends()
        redis.flushall()
        for name, value in backup.items():
            redis.restore(name, 0, value)
        assert store.jobs.get(TENANT, job.id).state is JobState.RUNNING

        done = Store.rebuild(store_settings, add_missing=True)
        assert (done.ended, done.queued) == (1, 1)
        assert redis.zcard("next:leases") == 0
    assert store.jobs.list(TENANT, limit=10, cursor=None, state=JobState.RUNNING)[0] == []
    (listed,), _ = store.jobs.list(TENANT, limit=10, cursor=None, state=JobState.SUCCEEDED)
    assert store.jobs.get(TENANT, listed.id) == ended
    assert store.jobs.get(TENANT, missing.id).state is JobState.QUEUED


def test_who_held_a_claim_before_holds_none_afterwards(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    job = submit(store)
    before = claim(store, job)
    redis.flushall()
    Store.rebuild(store_settings, add_missing=False)
    assert store.jobs.beat(job.id, before.fence, stage=None, progress=None) is Beat.LOST
    after = claim(store, job)
    assert (after.fence > before.fence, after.attempt) == (True, 1)
    assert not store.jobs.commit(job.id, before.fence, ARTIFACTS)
    assert store.jobs.commit(job.id, after.fence, ARTIFACTS)


def test_what_cannot_be_read_is_named_and_the_rest_brought_back(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    ended, damaged, newer = (submit(store) for _ in range(3))
    store.jobs.fail(ended.id, claim(store, ended).fence, OUT_OF_MEMORY)
    store.recorder.record_ends()
    series = store.series.create(TENANT, SeriesCreate(name="run"))
    records = store_settings.data_dir / "jobs"
    (records / damaged.id / "job.json").write_text("{")
    document = records / newer.id / "job.json"
    document.write_text(document.read_text().replace('"format": 1', '"format": 2'))
    redis.flushall()
    done = Store.rebuild(store_settings, add_missing=False)
    assert (done.ended, done.queued, done.series) == (1, 0, 1)
    assert [job for job in (damaged.id, newer.id) if not any(job in told for told in done.unreadable)] == []
    assert len(done.unreadable) == 2
    assert store.jobs.get(TENANT, ended.id).error == OUT_OF_MEMORY
    assert store.series.get(TENANT, series.id) == series


def test_what_was_accepted_before_requests_were_bounded_is_read(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    labels = {str(number): "x" for number in range(100)}
    old = {"series": "gone", "until": 2**60, "labels": labels}
    request = JobCreate.model_validate(old, context=AS_KEPT)
    job = store.jobs.submit(TENANT, request, INPUTS, idempotency_key=None, body_digest="")
    run = SeriesCreate.model_validate({"name": " ", "labels": labels}, context=AS_KEPT)
    series = store.series.create(TENANT, run)
    redis.flushall()
    assert Store.rebuild(store_settings, add_missing=False).unreadable == ()
    assert store.jobs.get(TENANT, job.id).request == request
    assert store.series.get(TENANT, series.id) == series


def test_an_idempotency_key_is_remembered(store: Store, store_settings: StoreSettings, redis: Redis) -> None:
    first = submit(store, key="k", digest="a")
    redis.flushall()
    Store.rebuild(store_settings, add_missing=False)
    assert submit(store, key="k", digest="a").id == first.id
    with pytest.raises(IdempotencyMismatch):
        submit(store, key="k", digest="b")


def test_webhooks_that_were_not_told_are_due_again_and_no_others(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    wanted = REQUEST.model_copy(update={"webhook": Webhook(url="https://example.org/")})
    told, tried, waiting, old, told_long_ago = (
        store.jobs.submit(TENANT, wanted, INPUTS, idempotency_key=None, body_digest="").id for _ in range(5)
    )
    for job in (told, tried, waiting, old, told_long_ago):
        store.jobs.cancel(TENANT, job)
        store.recorder.record_ends()
        if job in (told, told_long_ago):
            (due,) = store.deliveries.claim(9)
            assert store.deliveries.settle(due, status=200, error=None, wait_seconds=None)
        elif job == tried:
            (due,) = store.deliveries.claim(9)
            assert store.deliveries.settle(due, status=500, error="it answered 500", wait_seconds=3600)
        else:
            store.deliveries.claim(9)
    for job in (old, told_long_ago):
        record = store_settings.data_dir / "jobs" / job / "end.json"
        fields = json.loads(record.read_text())
        fields["job"]["finished_at"] = "2020-01-01T00:00:00Z"
        record.write_text(json.dumps(fields))
    before = {job: store.jobs.get(TENANT, job).deliveries for job in (told, told_long_ago)}
    redis.flushall()
    Store.rebuild(store_settings, add_missing=False)
    assert {job: store.jobs.get(TENANT, job).deliveries for job in before} == before
    (given_up,) = store.jobs.get(TENANT, old).deliveries
    assert given_up.next_at is None
    assert "Redis was rebuilt" in (given_up.error or "")
    due_again = store.deliveries.claim(9)
    assert {due.job.id for due in due_again} == {tried, waiting}
    for due in due_again:
        assert store.deliveries.settle(due, status=200, error=None, wait_seconds=None)
    redis.flushall()
    Store.rebuild(store_settings, add_missing=False)
    assert store.deliveries.claim(9) == []


def test_keys_open_what_they_opened_and_the_revoked_open_nothing(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    kept, kept_text = store.keys.create("lab", [Scope.READ], "page")
    revoked, revoked_text = store.keys.create("lab", [Scope.WRITE])
    store.keys.revoke(revoked.id)
    first, second = new_key("local"), new_key("local")
    for text in (first, second):  # the file on the server was replaced
        store.keys.adopt(KeyText.parse(text), "local", list(Scope))
        time.sleep(0.002)  # nobody replaces it twice within a millisecond
    before = store.keys.list()
    redis.flushall()
    assert Store.rebuild(store_settings, add_missing=False).keys == 4
    assert store.keys.list() == before
    assert store.keys.verify(kept_text) == kept
    assert store.keys.verify(second).id == "local"
    with pytest.raises(KeyRevoked):
        store.keys.verify(revoked_text)


def test_a_tenants_own_quotas_are_what_they_were(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    store.quotas.set("lab", {Quota.SERIES: 3})
    store.quotas.set("lab", {Quota.SERIES: 4, Quota.QUEUED_JOBS: 5})
    store.quotas.set("page", {Quota.SERIES: 6})
    store.quotas.reset("page")
    before = {tenant: store.quotas.usage(tenant) for tenant in ("lab", "page", TENANT)}
    redis.flushall()
    Store.rebuild(store_settings, add_missing=False)
    assert {tenant: store.quotas.usage(tenant) for tenant in before} == before
    assert before["lab"][Quota.SERIES].limit == 4


def test_a_file_that_was_acknowledged_does_not_change(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    series = store.series.create(TENANT, SeriesCreate(name="run"))
    first, second = (store.blobs.put_bytes(TENANT, data) for data in (b"first", b"second"))
    store.series.put_file(TENANT, series.id, 10, MODEL, first)
    redis.delete(f"next:series-files:{series.id}")  # as if it had been killed between the disk and Redis
    with pytest.raises(FileTaken):
        store.series.put_file(TENANT, series.id, 10, MODEL, second)
    assert store.series.get(TENANT, series.id).checkpoints == {10: {MODEL: first}}
