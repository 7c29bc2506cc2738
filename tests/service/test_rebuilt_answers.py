"""After Redis has lost everything and was rebuilt, the API answers what it answered before."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from redis import Redis

from nextrapolate.schemas import JobError, JobState, Stage
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.store import Store

Finish = Callable[[str], dict[str, bytes]]
Jobs = dict[JobState, str]


@pytest.fixture
def settings(settings: ServiceSettings) -> ServiceSettings:
    """Leases that outlive the test."""
    return replace(settings, store=replace(settings.store, lease_seconds=60))


@pytest.fixture
def redis(settings: ServiceSettings) -> Iterator[Redis]:
    with Redis.from_url(settings.store.redis_url, decode_responses=True) as redis:
        yield redis


@pytest.fixture
def jobs(client: TestClient, store: Store, finish: Finish, series_id: str) -> Jobs:
    """A job in each state, by its state; a series with a jump, and one with no checkpoint."""
    made: Jobs = {}
    for state in JobState:
        answer = client.post("/jobs", json={"series": series_id, "labels": {"for": state.value}})
        made[state] = str(answer.json()["id"])
    finish(made[JobState.SUCCEEDED])
    jump = {"step": 20, "job": made[JobState.SUCCEEDED]}
    assert client.post(f"/series/{series_id}/jumps", json=jump).is_success
    assert client.post("/series", json={"name": "b", "lora_config": {"r": 2, "lora_alpha": 4}}).is_success
    for state in (JobState.FAILED, JobState.RUNNING, JobState.CANCELLING):
        claim = store.jobs.claim(made[state], worker="test")
        assert claim is not None
        store.jobs.beat(made[state], claim.fence, stage=Stage.FIT, progress=0.5)
        if state is JobState.FAILED:
            error = JobError(code="not-finite", detail="checkpoint 20 holds NaN", blame="user")
            assert store.jobs.fail(made[state], claim.fence, error)
    for state in (JobState.CANCELLED, JobState.CANCELLING):
        assert client.post(f"/jobs/{made[state]}/cancel").is_success
    return made


def answers(client: TestClient, ended: list[str]) -> dict[str, Any]:
    """What can be asked about series, and about jobs that have ended."""
    found: dict[str, Any] = {"/series": client.get("/series").json()}
    for series in found["/series"]["items"]:
        found[series["id"]] = client.get(f"/series/{series['id']}").json()
    for job_id in ended:
        job = found[job_id] = client.get(f"/jobs/{job_id}").json()
        found[f"{job_id}: listed"] = client.get(f"/jobs?state={job['state']}").json()
        events = client.get(f"/jobs/{job_id}/events").text.split("\n\n")
        found[f"{job_id}: story"] = [event for event in events if not event.startswith("event: progress")]
        for name in job["artifacts"]:
            answer = client.get(f"/jobs/{job_id}/adapter/{name}")
            found[f"{job_id}: {name}"] = (answer.status_code, answer.content, answer.headers["ETag"])
    return found


def test_the_answers_are_the_same_and_what_had_not_ended_is_queued_again(
    client: TestClient, settings: ServiceSettings, redis: Redis, jobs: Jobs, finish: Finish
) -> None:
    ended = [job_id for state, job_id in jobs.items() if state.is_final]
    before = answers(client, ended)
    order = [job["id"] for job in client.get("/jobs").json()["items"]]
    unfinished = {
        job_id: client.get(f"/jobs/{job_id}").json() for job_id in jobs.values() if job_id not in ended
    }
    assert {job["state"] for job in unfinished.values()} == {"queued", "running", "cancelling"}
    deadline = time.monotonic() + 60
    while redis.scard("next:unrecorded"):  # the upkeep of the API does it
        assert time.monotonic() < deadline
        time.sleep(0.02)

    redis.flushall()
    assert client.get("/readyz").status_code == 503
    assert client.get("/jobs").status_code == 503  # and not 401, although even the keys are gone
    done = Store.rebuild(settings.store, add_missing=False)
    assert (done.series, done.ended, done.queued, done.unreadable) == (2, 3, 3, ())

    assert client.get("/readyz").is_success
    assert answers(client, ended) == before
    assert [job["id"] for job in client.get("/jobs").json()["items"]] == order
    again = {"state": "queued", "stage": None, "progress": 0, "attempt": 0, "started_at": None}
    for job_id, job in unfinished.items():
        now = client.get(f"/jobs/{job_id}").json()
        assert now == {**job, **again, "queue_position": now["queue_position"]}
    finish(jobs[JobState.RUNNING])
    assert client.get(f"/jobs/{jobs[JobState.RUNNING]}/report").is_success
