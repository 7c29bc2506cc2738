"""A data folder that is not mounted, or another one, is not taken for the deployment's own."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from fixtures.store import TENANT, submit
from redis import Redis
from ulid import ULID

from nextrapolate.schemas import SeriesCreate
from nextrapolate_store.deployment import Deployment
from nextrapolate_store.errors import StoreLost, StoreMismatched
from nextrapolate_store.journal import Journal
from nextrapolate_store.keys import Scope
from nextrapolate_store.records import FileSource
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quota

ID = "next:deployment"


@pytest.fixture
def redis(store_settings: StoreSettings) -> Iterator[Redis]:
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:
        yield redis


def kept_in(folder: Path) -> str:
    return (folder / "deployment").read_text()


def test_both_hold_one_id_from_the_first_start_on(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    known = str(redis.get(ID))
    assert known == kept_in(store_settings.data_dir)
    Store.open(store_settings).close()
    assert redis.get(ID) == known == kept_in(store_settings.data_dir)


def test_another_folder_is_refused_until_somebody_says_that_it_is_meant(
    store: Store, store_settings: StoreSettings, tmp_path: Path, redis: Redis
) -> None:
    other = replace(store_settings, data_dir=tmp_path / "other")
    for _ in range(2):
        with pytest.raises(StoreMismatched, match="mount the right one") as refused:
            Store.open(other)
    known, path = str(redis.get(ID)), tmp_path / "other" / "deployment"
    assert str(refused.value).endswith(f"write {known} into {path}")
    path.write_text(f"{known}\n")  # as `echo` does
    Store.open(other).close()
    Store.open(store_settings).close()


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe\x00"])
def test_a_damaged_id_is_refused_until_it_is_written_anew(
    store: Store, store_settings: StoreSettings, redis: Redis, damage: bytes
) -> None:
    known, path = str(redis.get(ID)), store_settings.data_dir / "deployment"
    path.write_bytes(damage)
    for look in (store.ping, lambda: Store.open(store_settings)):
        with pytest.raises(StoreMismatched, match=f"write {known} into {path}"):
            look()
    redis.flushall()
    Store.open(store_settings).close()
    assert redis.exists(ID)


def test_a_folder_that_goes_away_is_noticed_while_the_store_is_open(
    store: Store, store_settings: StoreSettings, tmp_path: Path
) -> None:
    store.ping()
    store_settings.data_dir.rename(tmp_path / "unmounted")
    store_settings.data_dir.mkdir()
    for look in (store.ping, store.check_folder, lambda: Store.open(store_settings)):
        with pytest.raises(StoreMismatched, match="of deployment none"):
            look()
    store_settings.data_dir.rmdir()
    (tmp_path / "unmounted").rename(store_settings.data_dir)
    store.ping()


Change = Callable[[Store], object]

CHANGES: dict[str, Change] = {
    "job": submit,
    "series": lambda store: store.series.create(TENANT, SeriesCreate(name="run")),
    "upload": lambda store: store.blobs.put_bytes(TENANT, b"weights"),
    "key": lambda store: store.keys.create(TENANT, [Scope.READ]),
    "quotas": lambda store: store.quotas.set(TENANT, {Quota.SERIES: 1}),
    "end": lambda store: store.recorder.record_ends(),
    "webhook": lambda store: store.deliveries.claim(1),
    "credentials": lambda store: store.credentials.forget_over(),
    "sweep": lambda store: store.sweeper.sweep(),
}


@pytest.fixture
def working(store: Store) -> Store:
    """A store with a job that has ended, which nobody has written down yet."""
    store.jobs.cancel(TENANT, submit(store).id)
    return store


@pytest.fixture
def unmounted(working: Store, store_settings: StoreSettings, tmp_path: Path) -> Path:
    """The bare mount point that shows while the data folder is away."""
    store_settings.data_dir.rename(tmp_path / "unmounted")
    store_settings.data_dir.mkdir()
    return store_settings.data_dir


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_is_changed_in_a_folder_that_is_not_the_deployments_own(
    what: str, working: Store, unmounted: Path
) -> None:
    with pytest.raises(StoreMismatched, match="of deployment none"):
        CHANGES[what](working)
    assert list(unmounted.iterdir()) == []


def test_what_belongs_to_a_series_is_refused_there_as_well(
    working: Store, store_settings: StoreSettings, tmp_path: Path
) -> None:
    series = working.series.create(TENANT, SeriesCreate(name="run")).id
    info = working.blobs.put_bytes(TENANT, b"weights")
    store_settings.data_dir.rename(tmp_path / "unmounted")
    shutil.copytree(tmp_path / "unmounted", store_settings.data_dir)  # another deployment's, but for its id
    (store_settings.data_dir / "deployment").write_text("another")
    for change in (
        partial(working.series.put_file, TENANT, series, 10, "adapter_model.safetensors", info),
        partial(working.series.delete, TENANT, series),
    ):
        with pytest.raises(StoreMismatched, match="of deployment another"):
            change()
    assert [path.name for path in (store_settings.data_dir / "series" / series).iterdir()] == ["series.json"]
    assert working.series.get(TENANT, series).checkpoints == {}


@pytest.mark.parametrize("what", ["job", "series", "upload", "key", "quotas"])
def test_where_it_goes_away_after_it_was_looked_at_nothing_is_written_either(
    what: str, working: Store, unmounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deployment, "check", lambda deployment: None)
    with pytest.raises(FileNotFoundError):
        CHANGES[what](working)
    assert list(unmounted.iterdir()) == []


def test_an_end_is_written_down_once_the_folder_is_back(
    working: Store,
    unmounted: Path,
    tmp_path: Path,
    store_settings: StoreSettings,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (listed,), _ = working.jobs.list(TENANT, limit=9, cursor=None)
    ended = working.jobs.get(TENANT, listed.id)
    with pytest.raises(StoreMismatched):
        working.recorder.record_ends()
    with monkeypatch.context() as looked_at_before:
        looked_at_before.setattr(Deployment, "check", lambda deployment: None)
        assert working.recorder.record_ends() == 0
    unmounted.rmdir()
    (tmp_path / "unmounted").rename(unmounted)
    assert working.recorder.record_ends() == 1
    redis.flushall()
    Store.rebuild(store_settings, add_missing=False)
    assert working.jobs.get(TENANT, ended.id) == ended


def test_nothing_is_swept_from_another_deployments_folder(
    store: Store, store_settings: StoreSettings, tmp_path: Path
) -> None:
    job, blob = str(ULID.from_timestamp(time.time() - 40 * 86400)), tmp_path / "other/blobs/lab/ab/abcd"
    credential = tmp_path / "other" / "credentials" / f"{job}.webhook-secret"
    record = tmp_path / "other" / "jobs" / job / "job.json"
    for path in (blob, credential, record):
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (0, time.time() - 40 * 86400))
    store_settings.data_dir.rename(tmp_path / "right")
    store_settings.data_dir.symlink_to(tmp_path / "other")
    for clear in (store.sweeper.sweep, store.credentials.forget_over):
        with pytest.raises(StoreMismatched):
            clear()
    assert [path for path in (blob, credential, record) if not path.exists()] == []


def test_a_sweep_ends_where_the_folder_goes_away_under_it(
    store: Store, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = store.blobs.path(
        FileSource("blob", store.blobs.put_bytes(TENANT, b"in no series of ours").sha256), TENANT
    )
    os.utime(blob, (0, time.time() - 2 * 86400))

    def replaced_meanwhile(journal: Journal) -> Iterator[tuple[str, set[str]]]:
        (store_settings.data_dir / "deployment").write_text("another")
        return iter(())

    monkeypatch.setattr(Journal, "blobs_in_use", replaced_meanwhile)
    with pytest.raises(StoreMismatched):
        store.sweeper.sweep()
    assert blob.exists()


def test_what_was_killed_between_folder_and_redis_is_finished(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    known = redis.get(ID)
    redis.flushall()
    Store.open(store_settings).close()
    assert redis.get(ID) == known


@pytest.mark.parametrize("file_is_lost", [False, True])
def test_a_rebuild_brings_the_id_back(
    store: Store, store_settings: StoreSettings, redis: Redis, file_is_lost: bool
) -> None:
    job = submit(store)
    redis.flushall()
    if file_is_lost:
        (store_settings.data_dir / "deployment").unlink()
    with pytest.raises(StoreLost):
        Store.open(store_settings)
    Store.rebuild(store_settings, add_missing=False)
    Store.open(store_settings).close()
    assert redis.get(ID) == kept_in(store_settings.data_dir)
    assert store.jobs.get(TENANT, job.id).id == job.id


def test_nothing_is_added_from_the_folder_of_another_deployment(
    store: Store, store_settings: StoreSettings, redis: Redis, tmp_path: Path
) -> None:
    submit(store)
    shutil.copytree(store_settings.data_dir, tmp_path / "other")
    (tmp_path / "other" / "deployment").write_text("another")
    with pytest.raises(StoreMismatched):
        Store.rebuild(replace(store_settings, data_dir=tmp_path / "other"), add_missing=True)
