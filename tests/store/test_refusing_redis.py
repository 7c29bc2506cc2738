"""A Redis that answers and takes no writes: it is at its maxmemory, or its last snapshot has failed."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from fixtures.redis import full, running, unable_to_save
from fixtures.store import ARTIFACTS, TENANT, claim, submit
from redis import Redis
from redis.exceptions import ResponseError

from nextrapolate.schemas import JobState, SeriesCreate
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_store.connection import Connection
from nextrapolate_store.errors import JobNotFound, SeriesNotFound, StoreUnavailable
from nextrapolate_store.retention import Retention
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

Refuses = Callable[[Redis], AbstractContextManager[None]]


@pytest.fixture
def redis(store_settings: StoreSettings) -> Iterator[Redis]:
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:
        yield redis


@pytest.mark.parametrize(
    ("refuses", "reason"),
    [(full, r"\(OOM\): .*raise its maxmemory"), (unable_to_save, r"\(MISCONF\): .*its disk")],
)
def test_writes_say_what_to_do_and_reads_are_served(
    store: Store, redis: Redis, refuses: Refuses, reason: str
) -> None:
    job = submit(store)
    fence = claim(store, job).fence
    with refuses(redis):
        for write in (
            store.ping,
            lambda: submit(store),
            lambda: store.jobs.beat(job.id, fence, stage=None, progress=0.5),
            lambda: store.jobs.commit(job.id, fence, ARTIFACTS),
            lambda: store.series.create(TENANT, SeriesCreate(name="run")),
        ):
            with pytest.raises(StoreUnavailable, match=reason):
                write()
        assert store.jobs.get(TENANT, job.id).state is JobState.RUNNING
        statistics = store.statistics.read()
        assert (statistics.jobs[JobState.RUNNING], statistics.takes_writes) == (1, False)
    assert store.jobs.commit(job.id, fence, ARTIFACTS)
    assert store.statistics.read().takes_writes


def test_reads_are_served_over_a_connection_that_rested(store: Store, redis: Redis) -> None:
    with unable_to_save(redis):
        time.sleep(5.1)  # redis-py had put a PING in front of a read after 5 s, and that is refused
        assert store.jobs.list(TENANT, limit=1, cursor=None) == ([], None)


@pytest.mark.parametrize("refuses", [full, unable_to_save])
def test_a_bucket_that_cannot_be_written_keeps_no_request_out(
    store: Store, redis: Redis, refuses: Refuses
) -> None:
    assert store.keys.admit("a", per_second=0.001, at_once=2) == 0
    with refuses(redis):
        assert [store.keys.admit("a", per_second=0.001, at_once=2) for _ in range(9)] == [0] * 9
    assert store.keys.admit("a", per_second=0.001, at_once=2) == 0
    assert store.keys.admit("a", per_second=0.001, at_once=2) > 0


def test_what_frees_memory_needs_none(store_settings: StoreSettings, redis: Redis) -> None:
    store = Store.open(replace(store_settings, retention=Retention(jobs=timedelta(milliseconds=1))))
    series = store.series.create(TENANT, SeriesCreate(name="run"))
    jobs = [submit(store) for _ in range(2)]
    for job in jobs:
        assert store.jobs.commit(job.id, claim(store, job).fence, ARTIFACTS)
    store.recorder.record_ends()
    time.sleep(0.01)
    with full(redis):
        store.series.delete(TENANT, series.id)
        with pytest.raises(SeriesNotFound):
            store.series.get(TENANT, series.id)
        swept = store.sweeper.sweep_if_due()
        assert swept is not None
        assert swept.jobs == 2
        assert store.sweeper.sweep_if_due() is None  # although no mark of the first could be set
    with pytest.raises(JobNotFound):
        store.jobs.get(TENANT, jobs[0].id)
    store.close()


def test_a_full_redis_keeps_to_the_mark_of_a_sweep(store: Store, redis: Redis) -> None:
    assert store.sweeper.sweep_if_due()
    with full(redis):
        assert store.sweeper.sweep_if_due() is None


def test_a_replica_refuses_commands_and_scripts(tmp_path: Path) -> None:
    embedded = EmbeddedRedis.prepare(find_redis_server(None), tmp_path)
    with running(embedded) as (redis, _):
        connection = Connection.open(embedded.url)
        redis.replicaof("127.0.0.1", "1")
        for write in (
            lambda: connection.set("a", 1),
            lambda: connection.eval("redis.call('SET', 'a', 1)", 0),
        ):
            with pytest.raises(StoreUnavailable, match=r"\(READONLY\): it is a replica"):
                write()
        with pytest.raises(ResponseError, match="OOM"):
            connection.eval("return redis.error_reply('ERR no OOM here')", 0)
        connection.close()
