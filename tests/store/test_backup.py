"""The backup of a folder in use, as the guide's commands make it, and what comes back from it."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from fixtures.store import ARTIFACTS, TENANT, claim, submit
from redis import Redis

from nextrapolate.schemas import CheckpointFile, JobState, SeriesCreate
from nextrapolate_store.retention import Retention
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")

GUIDE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
MODEL: CheckpointFile = "adapter_model.safetensors"


@contextmanager
def backing_up(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the guide's commands where `data` and `backup` are."""
    found = re.search(r"\*\*Back up\*\*.*?\n\n((?:    [^\n]+\n)+)", GUIDE, flags=re.S)
    assert found
    with subprocess.Popen(["bash", "-c", found[1]], cwd=folder) as process:
        try:
            yield process
        finally:
            process.terminate()


def back_up(folder: Path) -> int:
    """Run them to their end; gives the exit code."""
    with backing_up(folder) as process:
        return process.wait()


@pytest.fixture
def sweeping(store_settings: StoreSettings) -> Iterator[Store]:
    """A store whose sweeper keeps no upload that nobody needs."""
    at_once = Retention(uploads=timedelta(microseconds=1))
    store = Store.open(replace(store_settings, retention=at_once))
    yield store
    store.close()


def series_of(store: Store, content: bytes) -> str:
    series = store.series.create(TENANT, SeriesCreate(name="run"))
    store.series.put_file(TENANT, series.id, 10, MODEL, store.blobs.put_bytes(TENANT, content))
    return series.id


def test_what_was_deleted_stays_so_and_all_else_comes_back_with_its_files(
    sweeping: Store, store_settings: StoreSettings, tmp_path: Path
) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "data" / "api_key").write_text("nx_local_secret")
    kept, deleted = series_of(sweeping, b"kept"), series_of(sweeping, b"deleted")
    assert back_up(tmp_path) == 0
    sweeping.series.delete(TENANT, deleted)
    sweeping.sweeper.sweep()
    late, job = series_of(sweeping, b"late"), submit(sweeping)
    sweeping.jobs.commit(job.id, claim(sweeping, job).fence, ARTIFACTS)
    sweeping.recorder.record_ends()
    assert back_up(tmp_path) == 0

    shutil.rmtree(tmp_path / "data")
    (tmp_path / "backup").rename(tmp_path / "data")
    assert (tmp_path / "data" / "api_key").read_text() == "nx_local_secret"
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.flushall()
    Store.rebuild(store_settings, add_missing=False)
    restored = Store.open(store_settings)
    assert {series.id for series in restored.series.list(TENANT, limit=9, cursor=None)[0]} == {kept, late}
    for series in (kept, late):
        info = restored.series.get(TENANT, series).checkpoints[10][MODEL]
        assert restored.blobs.find(TENANT, info.sha256) == info
    assert len(restored.blobs.stored(TENANT)) == 2
    assert restored.jobs.get(TENANT, job.id).state is JobState.SUCCEEDED
    restored.close()


def test_it_goes_on_where_files_vanish_and_leaves_out_stages(store: Store, tmp_path: Path) -> None:
    backup = tmp_path / "backup" / "jobs"
    ended, running, last = (submit(store) for _ in range(3))
    (backup / ended.id / "stages" / "of an older backup").mkdir(parents=True)
    large, lost = (store.job_folders.result_folder(job.id, 1) / MODEL for job in (ended, running))
    lost.touch()
    with large.open("wb") as file:
        file.truncate(1 << 28)  # copied long enough for the folder behind it to be listed, and to go
    for job in (running, last):
        store.job_folders.stages_folder(job.id).mkdir()
    with backing_up(tmp_path) as process:
        while process.poll() is None and not (backup / ended.id / "1").exists():
            time.sleep(0.001)
        lost.unlink()
        shutil.rmtree(store.job_folders.stages_folder(running.id))
        assert process.wait() == 0
    assert not (backup / running.id / "1" / MODEL).exists(), "it vanished before it was copied"
    copied = {str(path.relative_to(backup)) for path in backup.rglob("*") if path.is_file()}
    assert copied == {f"{ended.id}/1/{MODEL}", *(f"{job.id}/job.json" for job in (ended, running, last))}
    assert list(backup.glob("*/stages")) == []


def test_a_folder_that_is_not_mounted_leaves_the_backup_as_it_is(store: Store, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    series_of(store, b"weights")
    assert back_up(tmp_path) == 0
    before = sorted((tmp_path / "backup").rglob("*"))
    (tmp_path / "data").rename(tmp_path / "unmounted")
    (tmp_path / "data").mkdir()
    assert back_up(tmp_path) != 0
    assert sorted((tmp_path / "backup").rglob("*")) == before
