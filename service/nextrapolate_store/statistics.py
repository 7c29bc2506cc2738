"""Counts that live in Redis, so that all processes agree on them and none loses them when it restarts."""

from collections.abc import Mapping
from dataclasses import dataclass

from nextrapolate.schemas import JobState, Stage
from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.decoding import pairs

BOUNDS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper ends (seconds) of the buckets of a histogram; the last one is open."""

_UPLOADED = "upload_bytes"


@dataclass(frozen=True)
class Histogram:
    """How long something took: how often up to each of `BOUNDS`, and how often longer; seconds in all."""

    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True)
class Statistics:
    """What was counted since Redis was empty, and what there is right now."""

    jobs: Mapping[JobState, int]
    """How many came to each state; a job may come to one again."""
    attempts_failed: int
    """Attempts that ended with an error in the server, which their workers have told."""
    lease_expired: int
    fence_refused: int
    republished: int
    """Messages that were sent again."""
    upload_bytes: int
    stages: Mapping[Stage, Histogram]
    """Of jobs that succeeded."""
    queue_depth: int
    queue_oldest_seconds: float
    takes_writes: bool
    """Redis does; one that is full, or has a broken disk, still tells all of this."""
    memory_bytes: int
    """What Redis' data and buffers take."""
    memory_limit_bytes: int
    """Its maxmemory; 0 is none."""


class StatisticsStore:
    """Counters, read and raised. Where a reply is lost, something may be counted twice."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis
        self._read = redis.load("statistics")

    def add_upload(self, size: int) -> None:
        """Count a file that has arrived."""
        self._redis.hincrby(RedisKey.COUNTERS, _UPLOADED, size)

    def read(self) -> Statistics:
        """Read all of them.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        reply, depth, waited_ms, takes_writes = self._read()
        memory = self._redis.info("memory")
        counters = pairs(reply)

        def counted(name: str) -> int:
            return int(counters.get(name, 0))

        return Statistics(
            jobs={state: counted(f"jobs:{state}") for state in JobState},
            attempts_failed=counted("attempts_failed"),
            lease_expired=counted("lease_expired"),
            fence_refused=counted("fence_refused"),
            republished=counted("republished"),
            upload_bytes=counted(_UPLOADED),
            stages={stage: _histogram(counters, stage) for stage in Stage},
            queue_depth=depth,
            queue_oldest_seconds=waited_ms / 1000,
            takes_writes=bool(takes_writes),
            memory_bytes=int(memory["used_memory"]),
            memory_limit_bytes=int(memory["maxmemory"]),
        )


def stage_counters(seconds: Mapping[Stage, float]) -> dict[str, float]:
    """What to add to which counter, after a job whose stages took so long."""
    added: dict[str, float] = {}
    for stage, taken in seconds.items():
        bucket = sum(taken > bound for bound in BOUNDS)
        added[f"stage:{stage}:{bucket}"] = 1
        added[f"stage:{stage}:sum"] = taken
    return added


def _histogram(counters: Mapping[str, str], stage: Stage) -> Histogram:
    buckets = range(len(BOUNDS) + 1)
    counts = tuple(int(counters.get(f"stage:{stage}:{bucket}", 0)) for bucket in buckets)
    return Histogram(counts, float(counters.get(f"stage:{stage}:sum", 0)))
