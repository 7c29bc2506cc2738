"""Opening a store: what it needs, and what it refuses."""

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.redis import running
from redis import Redis
from redis.exceptions import ResponseError

from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_store import errors
from nextrapolate_store.errors import StoreError, StoreIncompatible, StoreUnavailable
from nextrapolate_store.queue import broker_url
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store


@pytest.fixture
def configured(store_settings: StoreSettings) -> Iterator[Callable[..., object]]:
    """Sets up the tests' Redis in another way, until the test is over."""
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:
        before = {name: redis.config_get(name)[name] for name in ("maxmemory-policy", "appendonly")}
        yield lambda **options: [
            redis.config_set(name.replace("_", "-"), value) for name, value in options.items()
        ]
        for name, value in before.items():
            redis.config_set(name, value)


@pytest.mark.parametrize("password", ["", ":wrong@"])
def test_a_password_that_is_not_that_of_redis_is_no_outage(
    password: str, store_settings: StoreSettings
) -> None:
    scheme, _, rest = store_settings.redis_url.partition("://")
    right, _, address = rest.rpartition("@")
    with pytest.raises(StoreUnavailable, match="password of NEXTRAPOLATE_REDIS_URL") as refusal:
        Store.open(replace(store_settings, redis_url=f"{scheme}://{password}{address}"))
    assert right.strip(":") not in str(refusal.value)


def test_a_store_opens_twice_and_answers(store: Store, store_settings: StoreSettings) -> None:
    second = Store.open(store_settings)
    store.ping()
    second.ping()
    second.close()


@pytest.mark.parametrize(("schema", "whose"), [(1, "an older"), (3, "a newer")])
def test_data_of_another_version_is_refused(store_settings: StoreSettings, schema: int, whose: str) -> None:
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.set("next:schema_version", schema)
    with pytest.raises(
        StoreIncompatible, match=rf"{whose} nextrapolate \(schema {schema}, this one knows 2\)"
    ):
        Store.open(store_settings)


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_redis_that_evicts_jobs_is_refused(
    store: Store, store_settings: StoreSettings, configured: Callable[..., object], policy: str
) -> None:
    configured(maxmemory_policy=policy)
    for refused in (
        lambda: Store.open(store_settings),
        lambda: Store.rebuild(store_settings, add_missing=True),
    ):
        with pytest.raises(StoreIncompatible, match=rf"{policy}\): set maxmemory-policy to noeviction"):
            refused()


def test_a_redis_that_writes_nothing_down_is_warned_about(
    store_settings: StoreSettings, configured: Callable[..., object], caplog: pytest.LogCaptureFixture
) -> None:
    configured(maxmemory_policy="volatile-lru")
    Store.open(store_settings).close()
    assert caplog.messages == []
    configured(appendonly="no")
    Store.open(store_settings).close()
    assert "set appendonly to yes" in caplog.text


def test_no_redis_is_said_so(store_settings: StoreSettings, hasty_redis: None, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="try again later"):
        Store.open(replace(store_settings, redis_url=f"unix://{tmp_path}/none.sock"))


def test_a_redis_that_is_busy_with_a_script_is_away(store_settings: StoreSettings, tmp_path: Path) -> None:
    embedded = EmbeddedRedis.prepare(find_redis_server(None), tmp_path)
    with running(embedded, "--lua-time-limit", "20") as (redis, _), ThreadPoolExecutor(1) as beside:
        store = Store.open(replace(store_settings, redis_url=embedded.url))
        long = beside.submit(redis.eval, "for _ = 1, 2e9 do end", 0)

        def ping() -> None:
            while not long.done():
                store.ping()

        with pytest.raises(StoreUnavailable, match="BUSY"):
            ping()
        with Redis.from_url(embedded.url) as other:
            other.script_kill()
        with pytest.raises(ResponseError, match="killed"):
            long.result()
        store.ping()
        store.close()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEXTRAPOLATE_REDIS_URL", "redis://localhost/0")
    monkeypatch.setenv("NEXTRAPOLATE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("NEXTRAPOLATE_LEASE_SECONDS", "2.5")
    assert StoreSettings.from_environment() == StoreSettings("redis://localhost/0", tmp_path, 2.5, 3)
    with pytest.raises(ValueError, match="max_attempts"):
        StoreSettings("redis://localhost/0", tmp_path, max_attempts=0)
    monkeypatch.delenv("NEXTRAPOLATE_REDIS_URL")
    with pytest.raises(ValueError, match="NEXTRAPOLATE_REDIS_URL is not set"):
        StoreSettings.from_environment()


@pytest.mark.parametrize(
    ("redis_url", "expected"),
    [
        ("redis://:pw@host:6379/1", "redis://:pw@host:6379/1"),
        ("unix://:pw@/run/redis.sock", "redis+socket://:pw@/run/redis.sock"),
        ("unix:///run/redis.sock?db=2", "redis+socket:///run/redis.sock?virtual_host=2"),
    ],
)
def test_the_broker_is_the_same_redis(redis_url: str, expected: str) -> None:
    assert broker_url(redis_url) == expected


def test_errors_survive_pickling() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StoreError)
    ]
    assert len(kinds) > 10
    for kind in kinds:
        copy = pickle.loads(pickle.dumps(kind("what to do")))
        assert (type(copy), str(copy)) == (kind, "what to do")
