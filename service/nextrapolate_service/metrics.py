"""What Prometheus reads: read from Redis at each scrape, so that all API processes tell the same."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from nextrapolate_service.disk import Space
from nextrapolate_store.statistics import BOUNDS, Histogram, Statistics


class StoreMetrics(Collector):
    """One scrape of the store; without Redis there are no statistics, without the data folder no space."""

    def __init__(self, statistics: Statistics | None, space: Space | None) -> None:
        self._statistics = statistics
        self._space = space

    def collect(self) -> Iterator[Metric]:
        """Give each metric once."""
        works = self._statistics is not None and self._statistics.takes_writes
        yield GaugeMetricFamily("next_redis_up", "1 if Redis answers and accepts writes, else 0", works)
        if self._space is not None:
            free, reserve = self._space.free_bytes, self._space.reserve_bytes
            yield GaugeMetricFamily("next_disk_free_bytes", "Free space on the disk of the data folder", free)
            yield GaugeMetricFamily(
                "next_disk_reserve_bytes", "Free space below which nothing is accepted", reserve
            )
        if self._statistics is not None:
            yield from _of_jobs(self._statistics)
            used, limit = self._statistics.memory_bytes, self._statistics.memory_limit_bytes
            yield GaugeMetricFamily("next_redis_memory_bytes", "Memory that Redis uses", used)
            yield GaugeMetricFamily(
                "next_redis_memory_limit_bytes", "The maxmemory of Redis; 0 means no limit", limit
            )
            arrived = self._statistics.upload_bytes
            yield CounterMetricFamily("next_upload_bytes", "Bytes of checkpoints that arrived", arrived)


def _of_jobs(found: Statistics) -> Iterator[Metric]:
    jobs = CounterMetricFamily("next_jobs", "How often jobs came to a state", labels=["state"])
    for state, count in found.jobs.items():
        jobs.add_metric([state], count)
    stages = HistogramMetricFamily(
        "next_job_stage_seconds", "Time in each stage, of jobs that succeeded", labels=["stage"]
    )
    for stage, histogram in found.stages.items():
        stages.add_metric([stage], _cumulative(histogram), histogram.sum)
    yield from (jobs, stages)
    yield GaugeMetricFamily("next_queue_depth", "Jobs that wait for a worker", found.queue_depth)
    yield GaugeMetricFamily(
        "next_queue_oldest_seconds",
        "Longest wait of a queued job since it came, or came back",
        found.queue_oldest_seconds,
    )
    yield CounterMetricFamily(
        "next_attempts_failed", "Attempts that ended with an error in the server", found.attempts_failed
    )
    yield CounterMetricFamily(
        "next_lease_expired",
        "Claims that expired because their worker's heartbeat stopped",
        found.lease_expired,
    )
    yield CounterMetricFamily(
        "next_fence_refused", "Refused writes of workers that had lost their claim", found.fence_refused
    )
    yield CounterMetricFamily("next_republished", "Wake-ups that were sent again", found.republished)


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    labels = [*map(str, BOUNDS), "+Inf"]
    return [(label, sum(histogram.counts[: position + 1])) for position, label in enumerate(labels)]
