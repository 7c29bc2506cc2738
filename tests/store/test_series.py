"""Series: what has arrived of a run, and what a job on it reads."""

import json
import os
import shutil
from contextlib import suppress
from functools import partial
from itertools import count

import pytest
from fixtures.kills import interrupted_after
from fixtures.store import REQUEST, TENANT, claim, submit
from redis import Redis

from nextrapolate.schemas import CheckpointFile, FileInfo, JobState, SeriesCreate
from nextrapolate_store import series as stored_series
from nextrapolate_store.errors import (
    CheckpointIncomplete,
    FileTaken,
    InvalidCursor,
    JobNotFound,
    JobNotSucceeded,
    SeriesFull,
    SeriesNotFound,
)
from nextrapolate_store.records import FileSource, JobRecord, SeriesRecord, Source
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quota

ADAPTER_MODEL: CheckpointFile = "adapter_model.safetensors"
ADAPTER_CONFIG: CheckpointFile = "adapter_config.json"


def begin(store: Store, *, lora_config: dict[str, int] | None = None) -> SeriesRecord:
    request = SeriesCreate(name="grpo", base_model="tiny", lora_config=lora_config, labels={"seed": "0"})
    return store.series.create(TENANT, request)


def put_checkpoint(store: Store, series: SeriesRecord, step: int, *, config: bool = True) -> None:
    model = store.blobs.put_bytes(TENANT, f"model {step}".encode())
    store.series.put_file(TENANT, series.id, step, ADAPTER_MODEL, model)
    if config:
        info = store.blobs.put_bytes(TENANT, b"{}")
        store.series.put_file(TENANT, series.id, step, ADAPTER_CONFIG, info)


def succeeded_job(store: Store) -> JobRecord:
    job = submit(store)
    fence = claim(store, job).fence
    artifacts: dict[str, FileInfo] = {}
    for name in (ADAPTER_MODEL, ADAPTER_CONFIG):
        artifacts[name] = store.blobs.put_bytes(TENANT, b"result " + name.encode())
        (store.job_folders.result_folder(job.id, fence) / name).write_bytes(b"result " + name.encode())
    assert store.jobs.commit(job.id, fence, artifacts)
    return store.jobs.get(TENANT, job.id)


def test_a_series_begins_empty(store: Store) -> None:
    series = begin(store)
    assert (series.name, series.base_model, series.labels) == ("grpo", "tiny", {"seed": "0"})
    assert (series.checkpoints, series.jumps, series.lora_config_file) == ({}, (), None)
    assert store.series.get(TENANT, series.id) == series
    for unknown in (series.id[::-1], "nonsense"):
        with pytest.raises(SeriesNotFound):
            store.series.get(TENANT, unknown)
    with pytest.raises(SeriesNotFound):
        store.series.get("other", series.id)


def content(store: Store, source: Source) -> bytes:
    assert isinstance(source, FileSource)
    return store.blobs.path(source, TENANT).read_bytes()


def test_checkpoints_come_by_ascending_step(store: Store) -> None:
    series = begin(store)
    for step in (100, 20, 3):
        put_checkpoint(store, series, step)
    record = store.series.get(TENANT, series.id)
    assert list(record.checkpoints) == [3, 20, 100]
    assert set(record.checkpoints[20]) == {ADAPTER_MODEL, ADAPTER_CONFIG}
    inputs = store.series.inputs(TENANT, series.id, until=20)
    assert [adapter.step for adapter in inputs.checkpoints] == [3, 20]
    assert content(store, inputs.checkpoints[1].model) == b"model 20"
    assert inputs.series_name == series.name


def test_a_file_never_changes(store: Store) -> None:
    series = begin(store)
    put_checkpoint(store, series, 10)
    there = store.series.get(TENANT, series.id).checkpoints[10][ADAPTER_MODEL]
    store.series.put_file(TENANT, series.id, 10, ADAPTER_MODEL, there)
    other = store.blobs.put_bytes(TENANT, b"better")
    with pytest.raises(FileTaken, match="does not change"):
        store.series.put_file(TENANT, series.id, 10, ADAPTER_MODEL, other)
    assert store.series.get(TENANT, series.id).checkpoints[10][ADAPTER_MODEL] == there


def test_an_incomplete_checkpoint_is_named(store: Store) -> None:
    series = begin(store)
    put_checkpoint(store, series, 10)
    put_checkpoint(store, series, 20, config=False)
    with pytest.raises(CheckpointIncomplete, match=r"checkpoint 20 .* lacks adapter_config\.json"):
        store.series.inputs(TENANT, series.id, until=None)
    assert len(store.series.inputs(TENANT, series.id, until=19).checkpoints) == 1


def test_the_series_configuration_stands_in(store: Store) -> None:
    series = begin(store, lora_config={"r": 8})
    put_checkpoint(store, series, 10, config=False)
    (adapter,) = store.series.inputs(TENANT, series.id, until=None).checkpoints
    assert json.loads(store.blobs.path(adapter.config, TENANT).read_bytes()) == {"r": 8}


def test_a_jump_outlives_its_job(store: Store) -> None:
    series = begin(store)
    for step in (10, 20, 30):
        put_checkpoint(store, series, step)
    job = succeeded_job(store)
    record = store.series.add_jump(TENANT, series.id, 20, job.id)
    assert [(jump.step, jump.job) for jump in record.jumps] == [(20, job.id)]

    shutil.rmtree(store.job_folders.result_path(job, ADAPTER_MODEL).parent)
    inputs = store.series.inputs(TENANT, series.id, until=None)
    (jump,) = inputs.jumps
    assert jump.step == 20
    assert content(store, jump.model) == b"result adapter_model.safetensors"
    assert store.series.inputs(TENANT, series.id, until=20).jumps == ()


def test_a_series_takes_so_many_jumps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_series, "_MOST_STEPS", 1)
    series, job = begin(store), succeeded_job(store)
    for _ in range(2):
        assert len(store.series.add_jump(TENANT, series.id, 20, job.id).jumps) == 1
    with pytest.raises(SeriesFull, match="has 1 jumps, as many as a series may have"):
        store.series.add_jump(TENANT, series.id, 30, job.id)


def test_only_an_adapter_can_be_swapped_in(store: Store) -> None:
    series = begin(store)
    job = submit(store)
    with pytest.raises(JobNotSucceeded, match="is queued"):
        store.series.add_jump(TENANT, series.id, 10, job.id)
    assert store.jobs.get(TENANT, job.id).state is JobState.QUEUED
    with pytest.raises(JobNotFound):
        store.series.add_jump(TENANT, series.id, 10, series.id)
    with pytest.raises(SeriesNotFound):
        store.series.add_jump("other", series.id, 10, job.id)


def test_pages_hold_every_series_once_newest_first(store: Store) -> None:
    ids = sorted((begin(store).id for _ in range(5)), reverse=True)
    first, cursor = store.series.list(TENANT, limit=3, cursor=None)
    second, end = store.series.list(TENANT, limit=3, cursor=cursor)
    assert [series.id for series in (*first, *second)] == ids
    assert end is None
    with pytest.raises(InvalidCursor):
        store.series.list(TENANT, limit=3, cursor="(")


@pytest.mark.parametrize("what", ["file", "jump"])
def test_what_comes_while_its_series_is_deleted_leaves_nothing(
    store: Store, store_settings: StoreSettings, what: str
) -> None:
    info, job = store.blobs.put_bytes(TENANT, b"model"), succeeded_job(store)

    def come(series_id: str) -> None:
        with suppress(SeriesNotFound):
            if what == "file":
                store.series.put_file(TENANT, series_id, 10, ADAPTER_MODEL, info)
            else:
                store.series.add_jump(TENANT, series_id, 10, job.id)
            answered.append(series_id)

    answered: list[str] = []
    with Redis.from_url(store_settings.redis_url) as redis:
        for steps in count():
            series_id = begin(store).id
            delete = partial(store.series.delete, TENANT, series_id)
            if not interrupted_after(steps, partial(come, series_id), delete):
                break
            assert not (store_settings.data_dir / "series" / series_id).exists()
            assert redis.keys(f"*{series_id}*") == []
    assert steps >= 5, "it was deleted in between"
    assert len(answered) == 1, "a series is answered whole, or as gone"


def test_a_deleted_series_is_gone_and_its_files_with_the_last_job_that_needs_them(
    store: Store, store_settings: StoreSettings
) -> None:
    kept, deleted = begin(store), begin(store)
    put_checkpoint(store, kept, 10)
    for step in (10, 20):
        put_checkpoint(store, deleted, step)
    inputs = store.series.inputs(TENANT, deleted.id, until=20)
    shared, job_reads = inputs.checkpoints[0].model, inputs.checkpoints[1].model
    alone = store.blobs.put_bytes(TENANT, b"model 30")
    store.series.put_file(TENANT, deleted.id, 30, ADAPTER_MODEL, alone)
    job = store.jobs.submit(TENANT, REQUEST, inputs, idempotency_key=None, body_digest="")

    with pytest.raises(SeriesNotFound):
        store.series.delete("other", deleted.id)
    store.series.delete(TENANT, deleted.id)
    assert [series.id for series in store.series.list(TENANT, limit=9, cursor=None)[0]] == [kept.id]
    with pytest.raises(SeriesNotFound):
        store.series.delete(TENANT, deleted.id)

    for blob in (store_settings.data_dir / "blobs").rglob("*"):
        os.utime(blob, (0, 0))
    store.sweeper.sweep()
    assert store.blobs.find(TENANT, alone.sha256) is None
    assert content(store, shared)
    assert content(store, job_reads)
    left = sum(store.blobs.stored(TENANT).values())
    assert store.quotas.usage(TENANT)[Quota.BYTES].used == left

    with Redis.from_url(store_settings.redis_url) as redis:
        assert redis.keys(f"*{deleted.id}*") == []
        redis.flushall()
    Store.rebuild(store_settings, add_missing=False)
    assert [series.id for series in store.series.list(TENANT, limit=9, cursor=None)[0]] == [kept.id]
    assert store.jobs.get(TENANT, job.id).inputs == inputs
