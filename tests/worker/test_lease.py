"""A lease while Redis takes no writes: beats and commits are tried again for as long as it lasts."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from fixtures.redis import full, unable_to_save
from fixtures.store import ARTIFACTS, claim, submit
from redis import Redis

from nextrapolate.schemas import Stage
from nextrapolate_store.records import Beat
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_worker.lease import Lease
from nextrapolate_worker.messages import Done, Progress


@pytest.mark.parametrize("refuses", [full, unable_to_save])
def test_what_redis_refuses_is_tried_again(
    store: Store,
    store_settings: StoreSettings,
    refuses: Callable[[Redis], AbstractContextManager[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    lease = Lease(store.jobs, claim(store, submit(store)), store_settings.lease_seconds)
    done = Done(artifacts=ARTIFACTS, stage_seconds={Stage.FIT: 2.0})
    with (
        Redis.from_url(store_settings.redis_url, decode_responses=True) as redis,
        ThreadPoolExecutor(1) as side,
    ):
        with refuses(redis):
            deadline = time.monotonic() + 60
            while "a beat did not get through" not in caplog.text:
                assert lease.keep(Progress(stage=Stage.FIT, fraction=0.5)) is Beat.HELD
                assert time.monotonic() < deadline
                time.sleep(0.02)
            settled = side.submit(lease.settle, done)
            while "trying again" not in caplog.text:
                assert not settled.done()
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert settled.result() == "committed"
    assert store.statistics.read().stages[Stage.FIT].sum == 2.0
