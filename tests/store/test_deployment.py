"""A data folder that is not mounted, or another one, is not taken for the deployment's own."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.store import TENANT, submit
from redis import Redis

from nextrapolate_store.errors import StoreLost, StoreMismatched
from nextrapolate_store.keys import Scope
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

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


def test_a_deployment_from_before_there_were_ids_goes_on(
    store: Store, store_settings: StoreSettings, redis: Redis, tmp_path: Path
) -> None:
    store.keys.create("lab", [Scope.READ])
    redis.delete(ID)
    (store_settings.data_dir / "deployment").unlink()
    with pytest.raises(StoreMismatched, match=r"Redis has API keys, but .*other is empty: mount"):
        Store.open(replace(store_settings, data_dir=tmp_path / "other"))
    Store.open(store_settings).close()
    assert redis.get(ID) == kept_in(store_settings.data_dir)


def test_what_was_killed_between_folder_and_redis_is_finished(
    store: Store, store_settings: StoreSettings, redis: Redis
) -> None:
    known = redis.get(ID)
    redis.flushall()
    Store.open(store_settings).close()
    assert redis.get(ID) == known


@pytest.mark.parametrize("is_from_before", [False, True])
def test_a_rebuild_brings_the_id_back(
    store: Store, store_settings: StoreSettings, redis: Redis, is_from_before: bool
) -> None:
    job = submit(store)
    redis.flushall()
    if is_from_before:
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
