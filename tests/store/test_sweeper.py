"""The sweeper: what nobody needs goes, what somebody needs stays, whatever dies in between."""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from fixtures.kills import dies_after
from fixtures.store import OUT_OF_MEMORY, REQUEST, TENANT, claim, submit
from redis import Redis

from nextrapolate.schemas import CheckpointFile, FileInfo, JobState, SeriesCreate
from nextrapolate_store.environment import SETTINGS
from nextrapolate_store.errors import JobNotFound, StoreLost
from nextrapolate_store.files import locked, remove_abandoned
from nextrapolate_store.ids import make_id
from nextrapolate_store.records import FileSource, InputAdapter, JobInputs, JobRecord
from nextrapolate_store.retention import Retention
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

MODEL: CheckpointFile = "adapter_model.safetensors"
CONFIG: CheckpointFile = "adapter_config.json"
DAY = 24 * 3600.0


@pytest.fixture
def redis(store_settings: StoreSettings) -> Iterator[Redis]:
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:
        yield redis


@pytest.fixture
def forgetful(store_settings: StoreSettings) -> Iterator[Store]:
    """A store that keeps a job for a millisecond after its end."""
    store = Store.open(replace(store_settings, retention=Retention(jobs=timedelta(milliseconds=1))))
    yield store
    store.close()


@pytest.fixture
def data(store_settings: StoreSettings) -> Path:
    return store_settings.data_dir


def succeed(store: Store) -> JobRecord:
    """Submit a job and do a worker's part; leaves the folder of an attempt that was lost before."""
    job = submit(store)
    lost = claim(store, job)
    (store.job_folders.result_folder(job.id, lost.fence) / MODEL).write_bytes(b"half of a res")
    store.jobs.give_up(job.id, lost.fence, OUT_OF_MEMORY)
    fence = claim(store, job).fence
    artifacts: dict[str, FileInfo] = {}
    for name in (MODEL, CONFIG):
        content = f"result of {job.id}: {name}".encode()
        (store.job_folders.result_folder(job.id, fence) / name).write_bytes(content)
        artifacts[name] = FileInfo(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    assert store.jobs.commit(job.id, fence, artifacts)
    return store.jobs.get(TENANT, job.id)


def age(redis: Redis, job: JobRecord, days: float, index: str = "ended") -> None:
    """Let a job have ended so long ago."""
    assert redis.zscore(f"next:{index}", job.id) is not None
    redis.zincrby(f"next:{index}", -days * DAY * 1000, job.id)


def make_old(path: Path, days: float) -> None:
    """Let a file have been written so long ago."""
    os.utime(path, (0, time.time() - days * DAY))


def test_of_attempts_only_the_committed_one_is_kept(store: Store, data: Path) -> None:
    job, failed = succeed(store), submit(store)
    fence = claim(store, failed).fence
    store.job_folders.result_folder(failed.id, fence)
    store.jobs.fail(failed.id, fence, OUT_OF_MEMORY)
    assert store.recorder.record_ends() == 2
    names = {path.name for path in (data / "jobs" / job.id).iterdir()}
    assert names == {"job.json", "end.json", str(job.fence)}
    assert {path.name for path in (data / "jobs" / failed.id).iterdir()} == {"job.json", "end.json"}
    assert store.job_folders.result_path(job, MODEL).is_file()
    assert store.recorder.record_ends() == 0


def test_killed_before_any_step_of_it_an_end_is_written_down_the_next_time(store: Store, data: Path) -> None:
    for steps in count():
        job = succeed(store)
        finished = not dies_after(steps, store.recorder.record_ends)
        store.recorder.record_ends()
        remove_abandoned(data, older_than_seconds=0)
        names = {path.name for path in (data / "jobs" / job.id).iterdir()}
        assert names == {"job.json", "end.json", str(job.fence)}
        if finished:
            break
    assert steps > 3, "it was killed in between"


def test_jobs_go_after_thirty_days_and_their_events_after_seven(
    store: Store, redis: Redis, data: Path
) -> None:
    old, young, running = succeed(store), succeed(store), submit(store)
    claim(store, running)
    store.recorder.record_ends()
    for job, days in ((old, 30.01), (young, 29.9)):
        age(redis, job, days)
    age(redis, young, 7.01, "told")
    swept = store.sweeper.sweep()
    assert (swept.jobs, swept.events) == (1, 1)
    with pytest.raises(JobNotFound):
        store.jobs.get(TENANT, old.id)
    assert redis.keys(f"*{old.id}*") == []
    assert {path.name for path in (data / "jobs").iterdir()} == {young.id, running.id}
    assert store.jobs.events(young.id, None) == []
    assert len(store.jobs.events(running.id, None)) == 2
    listed, _ = store.jobs.list(TENANT, limit=10, cursor=None)
    assert {job.id for job in listed} == {young.id, running.id}
    for state in JobState:
        records, _ = store.jobs.list(TENANT, limit=10, cursor=None, state=state)
        assert {job.id for job in records} <= {young.id, running.id}


def test_many_go_in_one_sweep(store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextrapolate_store.sweeper._BATCH", 3)
    jobs = [submit(store) for _ in range(10)]
    for job in jobs:
        store.jobs.cancel(TENANT, job.id)
        age(redis, job, 31)
    assert store.sweeper.sweep().jobs == 10


def test_killed_before_any_step_of_a_sweep_nothing_dangles_and_the_next_one_finishes(
    forgetful: Store, data: Path
) -> None:
    kept = submit(forgetful)
    for steps in count():
        jobs = [succeed(forgetful) for _ in range(2)]
        forgetful.recorder.record_ends()
        unused = put(forgetful, b"refused by its series")
        make_old(unused, 2)
        time.sleep(0.01)
        finished = not dies_after(steps, forgetful.sweeper.sweep)
        listed, _ = forgetful.jobs.list(TENANT, limit=10, cursor=None)
        for job in listed:
            assert all(forgetful.job_folders.result_path(job, name).is_file() for name in job.artifacts)
        forgetful.sweeper.sweep()
        assert [job.id for job in forgetful.jobs.list(TENANT, limit=10, cursor=None)[0]] == [kept.id]
        assert [path.name for path in (data / "jobs").iterdir()] == [kept.id]
        assert not unused.exists()
        if finished:
            break
    assert steps > 2 * len(jobs), "it was killed in between"


def test_a_series_whose_creation_was_killed_goes_and_no_other(store: Store, redis: Redis, data: Path) -> None:
    info = store.blobs.put_bytes(TENANT, b"weights")
    kept, damaged, killed, young = (store.series.create(TENANT, SeriesCreate(name="run")) for _ in range(4))
    store.series.put_file(TENANT, kept.id, 10, MODEL, info)
    for series in (damaged, killed, young):
        (data / "series" / series.id / "series.json").unlink()
    for series in (killed, young):  # as if `create` had made the folder, and no more
        redis.delete(f"next:series:{series.id}")
    for series in (kept, damaged, killed):
        make_old(data / "series" / series.id, 1.01)
    assert store.sweeper.sweep().series == 1
    assert {path.name for path in (data / "series").iterdir()} == {kept.id, damaged.id, young.id}
    assert store.series.get(TENANT, kept.id).checkpoints == {10: {MODEL: info}}


def test_a_job_that_was_never_acknowledged_is_removed_but_none_that_waits(
    forgetful: Store, redis: Redis, data: Path
) -> None:
    orphan, waiting, running = (submit(forgetful) for _ in range(3))
    claim(forgetful, running)
    redis.delete(f"next:job:{orphan.id}")  # as if its submit had died after job.json
    time.sleep(0.01)
    assert forgetful.sweeper.sweep().orphans == 1
    assert {path.name for path in (data / "jobs").iterdir()} == {waiting.id, running.id}


def test_nothing_is_swept_where_redis_has_lost_its_data(forgetful: Store, redis: Redis, data: Path) -> None:
    jobs = {succeed(forgetful).id, submit(forgetful).id}
    forgetful.recorder.record_ends()
    time.sleep(0.01)
    redis.flushall()
    with pytest.raises(StoreLost):
        forgetful.sweeper.sweep()
    assert {path.name for path in (data / "jobs").iterdir()} == jobs


def test_a_clock_that_has_gone_ahead_is_followed_slowly(
    store: Store, redis: Redis, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was written a month behind Redis' clock is what a step ahead of a month leaves."""
    store.sweeper.sweep()
    days = 31
    step_ms = int(days * DAY * 1000)
    job, upload = succeed(store), put(store, b"not yet in its series")
    store.recorder.record_ends()
    for index in ("ended", "told"):
        age(redis, job, days, index)
    make_old(upload, days)
    unacknowledged = data / "jobs" / make_id(int(time.time() * 1000) - step_ms)
    unacknowledged.mkdir()
    redis.decrby("next:swept-until", step_ms)

    assert not any(astuple(store.sweeper.sweep()))
    assert "Redis' clock says" in caplog.text
    kept_for = next(sweeps for sweeps in count(1) if store.sweeper.sweep().jobs)
    assert kept_for == 60, "30 days, half a day at each sweep"
    assert (upload.exists(), unacknowledged.exists()) == (False, False)
    caplog.clear()
    redis.set("next:swept-until", int(time.time() * 1000) + step_ms)  # the clock is set right
    assert store.sweeper.sweep_if_due() is not None
    assert int(str(redis.get("next:swept-until"))) <= time.time() * 1000
    assert caplog.text == ""


def test_a_sweep_frees_a_redis_whose_memory_is_full(forgetful: Store, redis: Redis) -> None:
    forgetful.sweeper.sweep()
    succeed(forgetful)
    forgetful.recorder.record_ends()
    time.sleep(0.01)
    redis.config_set("maxmemory", 1)
    try:
        assert forgetful.sweeper.sweep().jobs == 1
    finally:
        redis.config_set("maxmemory", 0)


def test_one_sweep_at_a_time_is_enough(store: Store, store_settings: StoreSettings) -> None:
    second = Store.open(store_settings)
    assert store.sweeper.sweep_if_due() is not None
    assert second.sweeper.sweep_if_due() is None
    second.close()


# Uploads ----------------------------------------------------------------------------------------------


def put(store: Store, data: bytes) -> Path:
    return store.blobs.path(FileSource("blob", store.blobs.put_bytes(TENANT, data).sha256), TENANT)


def test_blobs_in_use_stay_and_others_go_after_a_day(store: Store, data: Path) -> None:
    series = store.series.create(TENANT, SeriesCreate(name="run", lora_config={"r": 8}))
    assert series.lora_config_file is not None
    used = [store.blobs.path(FileSource("blob", series.lora_config_file.sha256), TENANT)]
    for step in (10, 20):
        used.append(put(store, f"weights {step}".encode()))
        info = FileInfo(bytes=len(used[-1].read_bytes()), sha256=used[-1].name)
        store.series.put_file(TENANT, series.id, step, MODEL, info)
    jump = store.series.add_jump(TENANT, series.id, 10, succeed(store).id).jumps[0]
    used += [store.blobs.path(FileSource("blob", info.sha256), TENANT) for info in jump.files.values()]
    used.append(put(store, b"fetched for one job"))
    source = FileSource("blob", used[-1].name)
    inputs = JobInputs((InputAdapter(10, model=source, config=source),))
    job = store.jobs.submit(TENANT, REQUEST, inputs, idempotency_key=None, body_digest="")
    unused, young = put(store, b"refused by its series"), put(store, b"not yet in its series")
    for path in (*used, unused):
        make_old(path, 1.01)

    assert store.sweeper.sweep().blobs == 1
    assert not unused.exists()
    assert [path for path in (*used, young) if not path.exists()] == []
    shutil.rmtree(data / "jobs" / job.id)  # aged, and swept
    assert store.sweeper.sweep().blobs == 1
    assert not used[-1].exists()


def test_a_tenants_use_of_a_blob_keeps_only_its_own(store: Store) -> None:
    series = store.series.create("other", SeriesCreate(name="run"))
    info = store.blobs.put_bytes("other", b"weights")
    store.series.put_file("other", series.id, 10, MODEL, info)
    mine, theirs = put(store, b"weights"), store.blobs.path(FileSource("blob", info.sha256), "other")
    for path in (mine, theirs):
        make_old(path, 2)
    assert store.sweeper.sweep().blobs == 1
    assert (mine.exists(), theirs.exists()) == (False, True)


def test_no_blob_goes_while_a_record_cannot_be_read(
    store: Store, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    series = store.series.create(TENANT, SeriesCreate(name="run"))
    info = store.blobs.put_bytes(TENANT, b"weights")
    store.series.put_file(TENANT, series.id, 10, MODEL, info)
    path = store.blobs.path(FileSource("blob", info.sha256), TENANT)
    make_old(path, 2)
    (data / "series" / series.id / f"10.{MODEL}.json").write_text('{"fi')
    with caplog.at_level(logging.ERROR):
        assert store.sweeper.sweep().blobs == 0
    assert path.exists()
    assert f"10.{MODEL}.json" in caplog.text


def test_jobs_are_asked_what_they_need_only_of_blobs_in_no_series(
    store: Store, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A record of a job that nobody can read shows whether anybody wants to."""
    needed, damaged = put(store, b"fetched for one job"), submit(store)
    source = FileSource("blob", needed.name)
    inputs = JobInputs((InputAdapter(10, model=source, config=source),))
    store.jobs.submit(TENANT, REQUEST, inputs, idempotency_key=None, body_digest="")
    record = data / "jobs" / damaged.id / "job.json"
    whole = record.read_text()
    record.write_text('{"fi')
    series = store.series.create(TENANT, SeriesCreate(name="run"))
    info = store.blobs.put_bytes(TENANT, b"weights")
    store.series.put_file(TENANT, series.id, 10, MODEL, info)
    in_series = store.blobs.path(FileSource("blob", info.sha256), TENANT)
    make_old(in_series, 2)
    assert store.sweeper.sweep().blobs == 0
    assert caplog.text == ""

    unused = put(store, b"of none")
    for path in (needed, unused):
        make_old(path, 2)
    assert store.sweeper.sweep().blobs == 0
    assert str(record) in caplog.text
    record.write_text(whole)
    assert store.sweeper.sweep().blobs == 1
    assert [path.exists() for path in (in_series, needed, unused)] == [True, True, False]


def test_what_is_deleted_while_it_is_swept_keeps_no_blob(
    store: Store, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Records go after their folder was listed: a series' by its owner, a job's by another sweep."""
    deleted, swept = store.series.create(TENANT, SeriesCreate(name="run")), succeed(store)
    store.recorder.record_ends()
    info = store.blobs.put_bytes(TENANT, b"of the deleted series")
    store.series.put_file(TENANT, deleted.id, 10, MODEL, info)
    unused = [store.blobs.path(FileSource("blob", info.sha256), TENANT), put(store, b"of none")]
    for path in unused:
        make_old(path, 2)
    read = Path.read_text

    def too_late(path: Path, encoding: str = "utf-8", errors: str | None = None) -> str:
        if path.parent.name == deleted.id:
            store.series.delete(TENANT, deleted.id)
        if path.parent.name == swept.id:
            store.job_folders.discard(swept.id)
        return read(path, encoding, errors)

    monkeypatch.setattr(Path, "read_text", too_late)
    assert store.sweeper.sweep().blobs == len(unused)
    assert caplog.text == ""


def test_what_is_sent_again_while_it_is_swept_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeper has found it old and of no use, and then it comes again."""
    again, asked_for = b"sent again", b"asked for by its digest"
    paths = [put(store, data) for data in (again, asked_for)]
    for path in paths:
        make_old(path, 2)

    @contextmanager
    def too_late(folder: Path, *, shared: bool) -> Iterator[None]:
        if not shared:
            put(store, again)
            assert store.blobs.find(TENANT, paths[1].name)
        with locked(folder, shared=shared):
            yield

    monkeypatch.setattr("nextrapolate_store.blobs.locked", too_late)
    assert store.sweeper.sweep().blobs == 0
    assert [path.exists() for path in paths] == [True, True]


def test_temporary_files_go_when_nobody_writes_to_them(store: Store, data: Path) -> None:
    with store.blobs.upload(TENANT) as upload:
        upload.write(b"slow")
        (dead,) = (data / "blobs" / TENANT).glob(".upload-*")
        assert store.sweeper.sweep().temporary_files == 0
        others = [data / ".upload-probe", data / "keys" / ".upload-key"]
        for path in (dead, *others):
            path.touch()
            make_old(path, 1.01)
        assert store.sweeper.sweep().temporary_files == 3
        assert [path for path in (dead, *others) if path.exists()] == []


# Settings ---------------------------------------------------------------------------------------------


def test_ages_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Retention.from_environment() == Retention(
        jobs=timedelta(days=30),
        events=timedelta(days=7),
        idempotency_keys=timedelta(hours=24),
        uploads=timedelta(hours=24),
        sweep_every=timedelta(hours=1),
    )
    monkeypatch.setenv("NEXTRAPOLATE_KEEP_JOBS_DAYS", "0.5")
    monkeypatch.setenv("NEXTRAPOLATE_SWEEP_MINUTES", "10")
    found = Retention.from_environment()
    assert (found.jobs, found.sweep_every) == (timedelta(hours=12), timedelta(minutes=10))
    for wrong in ("0", "-1", "a month", "nan", "inf", "1e-300", "1e300"):
        monkeypatch.setenv("NEXTRAPOLATE_KEEP_JOBS_DAYS", wrong)
        with pytest.raises(
            ValueError, match=f"NEXTRAPOLATE_KEEP_JOBS_DAYS is '{wrong}': write a number from 0.001"
        ):
            Retention.from_environment()


def test_no_setting_changes_what_callers_are_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        if name.startswith("NEXTRAPOLATE_KEEP_"):
            monkeypatch.setenv(name, "1")
    found = Retention.from_environment()
    assert (found.jobs, found.events) == (timedelta(days=1), timedelta(days=1))
    assert (found.idempotency_keys, found.uploads) == (Retention.idempotency_keys, Retention.uploads)
