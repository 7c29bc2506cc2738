"""/metrics: what Prometheus reads, and who may."""

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from fixtures.problems import problem
from fixtures.redis import full, unable_to_save
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from nextrapolate.schemas import JobState, Stage
from nextrapolate_service.app import create_app
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.keys import Scope
from nextrapolate_store.store import Store

Finish = Callable[[str], dict[str, bytes]]
Samples = Mapping[tuple[str, str], float]

NAMES = {
    "next_jobs_total",
    "next_queue_depth",
    "next_queue_oldest_seconds",
    "next_job_stage_seconds",
    "next_attempts_failed_total",
    "next_lease_expired_total",
    "next_fence_refused_total",
    "next_republished_total",
    "next_upload_bytes_total",
    "next_redis_up",
    "next_redis_memory_bytes",
    "next_redis_memory_limit_bytes",
    "next_disk_free_bytes",
    "next_disk_reserve_bytes",
}


@pytest.fixture
def settings(settings: ServiceSettings) -> ServiceSettings:
    """Leases that outlive the test."""
    return replace(settings, store=replace(settings.store, lease_seconds=60))


def scrape(client: TestClient) -> Samples:
    """Read what Prometheus would, by the sample's name and the value of its label."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    families = list(text_string_to_metric_families(answer.text))
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert names == NAMES
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in families
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_every_metric_moves_with_what_it_counts(
    client: TestClient, uploaded_series: str, finish: Finish, store: Store
) -> None:
    before = scrape(client)
    assert before["next_upload_bytes_total", ""] == sum(
        info["bytes"]
        for checkpoint in client.get(f"/series/{uploaded_series}").json()["checkpoints"]
        for info in checkpoint["files"].values()
    )
    assert (before["next_queue_depth", ""], before["next_queue_oldest_seconds", ""]) == (0, 0)

    jobs = [client.post("/jobs", json={"series": uploaded_series}).json()["id"] for _ in range(3)]
    done, waiting, cancelled = jobs
    finish(done)
    client.post(f"/jobs/{cancelled}/cancel")
    store.jobs.commit(waiting, 7, {})
    time.sleep(0.02)
    after = scrape(client)
    assert after["next_queue_depth", ""] == 1
    assert 0.02 <= after["next_queue_oldest_seconds", ""] < 60
    came = {"queued": 3, "running": 1, "succeeded": 1, "cancelled": 1}
    assert {state: after["next_jobs_total", state] for state in JobState} == dict.fromkeys(JobState, 0) | came
    assert after["next_fence_refused_total", ""] == 1
    assert (after["next_redis_up", ""], after["next_disk_free_bytes", ""] > 0) == (1, True)


def test_stages_are_a_histogram_over_jobs(client: TestClient, series_id: str, store: Store) -> None:
    for extract, fit in ((0.05, 4.0), (0.2, 4000.0)):
        job = client.post("/jobs", json={"series": series_id}).json()["id"]
        claim = store.jobs.claim(job, worker="test")
        assert claim is not None
        taken = {Stage.EXTRACT: extract, Stage.FIT: fit}
        for _ in range(2):  # told again, as its reply was lost, it counts once
            assert store.jobs.commit(job, claim.fence, {}, taken)
    text = client.get("/metrics").text
    for line in (
        'next_job_stage_seconds_bucket{le="0.1",stage="extract"} 1.0',
        'next_job_stage_seconds_bucket{le="0.5",stage="extract"} 2.0',
        'next_job_stage_seconds_bucket{le="5.0",stage="fit"} 1.0',
        'next_job_stage_seconds_bucket{le="1800.0",stage="fit"} 1.0',
        'next_job_stage_seconds_bucket{le="+Inf",stage="fit"} 2.0',
        'next_job_stage_seconds_sum{stage="fit"} 4004.0',
        'next_job_stage_seconds_count{stage="load"} 0.0',
    ):
        assert line in text.splitlines(), line


def test_all_processes_tell_the_same_and_a_restart_loses_nothing(
    client: TestClient, settings: ServiceSettings, uploaded_series: str
) -> None:
    client.post("/jobs", json={"series": uploaded_series})
    first = scrape(client)
    with TestClient(create_app(settings), headers=dict(client.headers)) as another:
        second = scrape(another)
    counters = [sample for sample in first if sample[0].endswith("_total")]
    assert {sample: first[sample] for sample in counters} == {sample: second[sample] for sample in counters}


def test_it_opens_to_keys_of_its_own_scope_alone(client: TestClient, store: Store) -> None:
    problem(client.get("/metrics", headers={"Authorization": ""}), 401, "unauthorized")
    for scope, status in ((Scope.WRITE, 403), (Scope.METRICS, 200)):
        _, key = store.keys.create("lab", [scope])
        assert client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == status


@pytest.mark.parametrize("refuses", [full, unable_to_save])
def test_a_redis_that_takes_no_writes_is_not_up(
    client: TestClient, settings: ServiceSettings, refuses: Callable[[Redis], AbstractContextManager[None]]
) -> None:
    with Redis.from_url(settings.store.redis_url, decode_responses=True) as redis, refuses(redis):
        refusing = scrape(client)
    again = scrape(client)
    assert (refusing["next_redis_up", ""], again["next_redis_up", ""]) == (0, 1)
    limit = ("next_redis_memory_limit_bytes", "")
    assert (refusing[limit], again[limit]) == (float(refuses is full), 0)
    assert again["next_redis_memory_bytes", ""] > 100_000


@pytest.mark.usefixtures("impatient")
def test_without_redis_it_says_so_and_no_more(settings: ServiceSettings) -> None:
    nowhere = replace(settings, store=replace(settings.store, redis_url="unix:///nowhere/redis.sock"))
    with TestClient(create_app(nowhere)) as client:
        lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    assert lines[0] == "next_redis_up 0.0"
    assert {line.split()[0] for line in lines[1:]} == {"next_disk_free_bytes", "next_disk_reserve_bytes"}


@pytest.mark.parametrize("reserve", [None, 1 << 40])
def test_the_reserve_of_the_disk_is_told(
    settings: ServiceSettings, api_key: str, reserve: int | None
) -> None:
    """It depends on the disk, so an alert can be written for none without it."""
    own = replace(settings, disk_reserve_bytes=reserve)
    with TestClient(create_app(own), headers={"Authorization": f"Bearer {api_key}"}) as client:
        told = scrape(client)["next_disk_reserve_bytes", ""]
    disk = shutil.disk_usage(settings.store.data_dir)
    assert told == (reserve or max(2 << 30, int(disk.total * 0.05)))
