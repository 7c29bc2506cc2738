"""Wake-ups go out together, in the order of their jobs, and none stays behind where the service ends."""

import base64
import json
from typing import cast

import pytest
from redis import Redis

from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.wakeup import WakeUps
from nextrapolate_store.queue import BROKER_LIST

MANY = 100


def test_wake_ups_that_come_together_go_out_together(settings: ServiceSettings) -> None:
    url = settings.store.redis_url
    ids = [f"job-{number}" for number in range(MANY)]
    with Redis.from_url(url) as redis:
        before = reads(redis)
        wake_ups = WakeUps(url)
        for job_id in ids:
            wake_ups.send(job_id)
        wake_ups.close()
        sent = cast(list[bytes], redis.lrange(BROKER_LIST, 0, -1))
        assert [named(message) for message in sent] == ids[::-1]
        assert reads(redis) - before < MANY, "each went on its own"


def test_one_that_comes_after_the_end_is_told_of(
    settings: ServiceSettings, caplog: pytest.LogCaptureFixture
) -> None:
    wake_ups = WakeUps(settings.store.redis_url)
    wake_ups.close()
    wake_ups.send("job-1")
    assert "the wake-up of job job-1 did not go out (the server is stopping)" in caplog.text


def reads(redis: Redis) -> int:
    """How often Redis has read from its connections."""
    return int(redis.info("stats")["total_reads_processed"])


def named(message: bytes) -> str:
    """The job that a message names."""
    (job_id,), *_ = json.loads(base64.b64decode(json.loads(message)["body"]))
    return str(job_id)
