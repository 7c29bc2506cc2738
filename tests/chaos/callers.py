"""Callers that submit jobs until each is acknowledged, whatever happens to the API they talk to."""

import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

from chaos.deployment import STEPS, Deployment
from nextrapolate import NExtClient
from nextrapolate.errors import APIError, ServiceUnreachable
from nextrapolate.schemas import (
    BacktestCreate,
    ExpoMethod,
    InspectCreate,
    JobCreate,
    JobRequest,
    NextMethod,
    NoneMethod,
    WeightExtrapolationMethod,
)
from nextrapolate_store.connection import RedisKey
from nextrapolate_store.errors import StoreUnavailable

_ANSWER_SECONDS = 10.0


class Kind(StrEnum):
    """What kind of job it is."""

    ORDINARY = "ordinary"
    LONG = "long"
    """Runs until it is stopped."""
    POISON = "poison"
    """As long, and kills every child that runs it."""


@dataclass(frozen=True)
class Acknowledged:
    """A job that the service has promised to do.

    Attributes:
        id: of the job.
        key: idempotency key of the request, sent as often as it took.
        kind: what kind of job it is.
        asks: for what; jobs that ask for the same must get the same.
        tries: how often it was sent.
        seconds: from the last sending to the answer.
    """

    id: str
    key: str
    kind: Kind
    asks: str
    tries: int
    seconds: float


def requests(series: str) -> dict[str, JobRequest]:
    """Cheap jobs of all tasks, by name."""
    horizon = STEPS.step
    return {
        "none": JobCreate(series=series, method=NoneMethod()),
        "expo": JobCreate(series=series, method=ExpoMethod()),
        "line": JobCreate(series=series, method=WeightExtrapolationMethod(horizon_steps=horizon)),
        "backtest": BacktestCreate(
            series=series, at=STEPS[-2], horizon_steps=horizon, methods=[NoneMethod()]
        ),
        "inspect": InspectCreate(series=series),
    }


def long_request(series: str) -> JobRequest:
    """A job that takes much longer than a campaign waits for it."""
    return JobCreate(
        series=series, method=NextMethod(preset="paper", horizon_steps=STEPS.step, epochs=100_000)
    )


@dataclass
class Callers:
    """Some callers at once, which keep the queue short and the workers busy."""

    deployment: Deployment
    jobs: int
    seed: int
    longest_queue: int
    callers: int = 3
    acknowledged: list[Acknowledged] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> Sequence[threading.Thread]:
        """Begin to submit; the threads end once all ordinary jobs are acknowledged."""
        shares = [range(number, self.jobs, self.callers) for number in range(self.callers)]
        threads = [threading.Thread(target=self._submit_all, args=(share,), daemon=True) for share in shares]
        for thread in threads:
            thread.start()
        return threads

    def submit(self, request: JobRequest, key: str, kind: Kind, asks: str) -> str | None:
        """Submit one job until it is acknowledged, each time at any API; None where the campaign is over."""
        chance = random.Random(key)
        tries = 0
        while not self.stopping.is_set():
            tries += 1
            url = chance.choice(self.deployment.urls)
            started = time.monotonic()
            try:
                with NExtClient(url, self.deployment.key, timeout=_ANSWER_SECONDS) as client:
                    job = client.submit(request, idempotency_key=key)
            except (ServiceUnreachable, APIError) as error:
                if isinstance(error, APIError) and not error.problem.retryable:
                    raise
                continue
            seconds = time.monotonic() - started
            self.acknowledged.append(Acknowledged(job.id, key, kind, asks, tries, seconds))
            return job.id
        return None

    def _submit_all(self, share: range) -> None:
        chance = random.Random(f"{self.seed}-{share.start}")
        choices = requests(self.deployment.series)
        for number in share:
            self._wait_for_room()
            asks = chance.choice(sorted(choices))
            self.submit(choices[asks], f"{self.seed}-{number}", Kind.ORDINARY, asks)

    def _wait_for_room(self) -> None:
        while not self.stopping.wait(0.1):
            with suppress(StoreUnavailable):
                if self.deployment.look.zcard(RedisKey.QUEUED) < self.longest_queue:
                    return
