"""Real Celery workers: one is killed in the middle of a job, and the job is done all the same, once."""

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from celery import Celery
from fixtures.jobs import job_over, run_inputs
from fixtures.processes import children
from redis import Redis

from nextrapolate.schemas import JobState, Method, NextMethod, Stage, WeightExtrapolationMethod
from nextrapolate_service.server.commands import worker_command
from nextrapolate_store.queue import TASK_NAME, celery_settings
from nextrapolate_store.records import JobRecord
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

Submit = Callable[[Method], JobRecord]

pytestmark = pytest.mark.integration

SLOW = NextMethod(preset="paper", horizon_steps=20, epochs=100)


@contextmanager
def worker(
    settings: StoreSettings, log: Path | None = None, device: str = "auto"
) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "NEXTRAPOLATE_DEVICE": device,
        "NEXTRAPOLATE_REDIS_URL": settings.redis_url,
        "NEXTRAPOLATE_DATA_DIR": str(settings.data_dir),
        "NEXTRAPOLATE_LEASE_SECONDS": str(settings.lease_seconds),
        "NEXTRAPOLATE_THREADS": "1",
    }
    with ExitStack() as stack:
        stderr = stack.enter_context(log.open("wb")) if log else None
        process = stack.enter_context(
            subprocess.Popen(worker_command(f"{secrets.token_hex(4)}@%h"), env=environment, stderr=stderr)
        )
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture
def settings(store_settings: StoreSettings) -> StoreSettings:
    """A lease that a test can wait for."""
    return StoreSettings(store_settings.redis_url, store_settings.data_dir, lease_seconds=2)


@pytest.fixture
def leasing_store(settings: StoreSettings) -> Iterator[Store]:
    store = Store.open(settings)
    yield store
    store.close()


@pytest.fixture
def submit(leasing_store: Store, settings: StoreSettings, run_folder: Path) -> Iterator[Submit]:
    with Celery(set_as_current=False) as producer:
        producer.conf.update(celery_settings(settings.redis_url))

        def submit(method: Method) -> JobRecord:
            job = leasing_store.jobs.submit(
                "default",
                job_over(run_folder, method),
                run_inputs(run_folder),
                idempotency_key=None,
                body_digest="",
            )
            producer.send_task(TASK_NAME, args=[job.id])
            return job

        yield submit


def wait_until(store: Store, job: JobRecord, reached: Callable[[JobRecord], bool]) -> JobRecord:
    deadline = time.monotonic() + 240
    while not reached(now := store.jobs.get("default", job.id)):
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    return now


def reconcile_until_final(store: Store, settings: StoreSettings, job: JobRecord) -> list[str]:
    """Do what every API process does, until the job has ended; gives the jobs whose lease ran out."""
    requeued: list[str] = []
    deadline = time.monotonic() + 240
    with Celery(set_as_current=False) as producer:
        producer.conf.update(celery_settings(settings.redis_url))
        while not store.jobs.get("default", job.id).state.is_final:
            assert time.monotonic() < deadline
            outcome = store.jobs.reconcile(wake_after_seconds=0.5)
            requeued += outcome.requeued
            for job_id in outcome.wake:
                producer.send_task(TASK_NAME, args=[job_id])
            time.sleep(0.2)
    return requeued


def test_a_job_goes_through_the_queue_and_the_log_tells_of_it(
    leasing_store: Store, settings: StoreSettings, submit: Submit, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with worker(settings, log):
        job = submit(WeightExtrapolationMethod(horizon_steps=20))
        done = wait_until(leasing_store, job, lambda now: now.state.is_final)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 1)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [
        line["message"] for line in lines if (line.get("job_id"), line.get("fence")) == (job.id, done.fence)
    ]
    assert told[0] == "claimed, attempt 1"
    assert told[-1].startswith("committed after ")


def test_a_killed_workers_job_runs_again_and_commits_once(
    leasing_store: Store, settings: StoreSettings, submit: Submit
) -> None:
    with ExitStack() as stack:
        doomed = stack.enter_context(worker(settings))
        job = submit(SLOW)
        wait_until(leasing_store, job, lambda now: now.stage is Stage.FIT)
        pids = children(doomed.pid)
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        assert pids

        stack.enter_context(worker(replace(settings, lease_seconds=60)))
        requeued = reconcile_until_final(leasing_store, settings, job)
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []

    done = leasing_store.jobs.get("default", job.id)
    assert (done.state, done.attempt, requeued) == (JobState.SUCCEEDED, 2, [job.id])
    endings = [event for event in leasing_store.jobs.events(job.id, None) if event.type == "succeeded"]
    assert len(endings) == 1


@pytest.mark.parametrize("whole_unit", [False, True], ids=["the worker", "its whole unit"])
def test_a_stopped_workers_job_waits_for_no_lease_and_loses_no_attempt(
    leasing_store: Store, settings: StoreSettings, submit: Submit, whole_unit: bool
) -> None:
    with worker(replace(settings, lease_seconds=600)) as stopped:
        job = submit(SLOW)
        wait_until(leasing_store, job, lambda now: now.stage is Stage.FIT)
        for pid in children(stopped.pid) if whole_unit else ():
            os.kill(pid, signal.SIGTERM)
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(60) == 0
    now = leasing_store.jobs.get("default", job.id)
    assert (now.state, now.attempt) == (JobState.QUEUED, 0)
    assert leasing_store.jobs.reconcile().wake == (job.id,)
    again = leasing_store.jobs.claim(job.id, worker="another")
    assert again is not None
    assert (again.attempt, again.fence > now.fence) == (1, True)


def test_a_worker_does_not_start_on_data_of_another_version(settings: StoreSettings, tmp_path: Path) -> None:
    with Redis.from_url(settings.redis_url) as redis:
        redis.set("next:schema_version", 99)
    log = tmp_path / "log"
    with worker(settings, log) as process:
        assert process.wait(240) == 1
    assert "not started: the data was written by a newer nextrapolate" in log.read_text()


def test_a_worker_does_not_start_where_its_device_is_not(settings: StoreSettings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with worker(settings, log, device="cuda:99") as process:
        assert process.wait(240) == 1
    assert "not started: NEXTRAPOLATE_DEVICE is cuda:99, but torch sees" in log.read_text()


def test_a_worker_on_a_full_disk_gives_its_job_back_and_leaves_it_to_another(
    leasing_store: Store, settings: StoreSettings, submit: Submit
) -> None:
    job = submit(WeightExtrapolationMethod(horizon_steps=20))
    before = 2_000_000_000_000  # a fence beyond the time, so that the next one is known
    with Redis.from_url(settings.redis_url) as redis:
        redis.hset(f"next:job:{job.id}", "fence", before)
    (leasing_store.job_folders.result_folder(job.id, before + 1) / "report.json").symlink_to("/dev/full")
    with ExitStack() as stack:
        full = stack.enter_context(worker(settings))
        given_back = wait_until(
            leasing_store, job, lambda now: now.fence > before and now.state is JobState.QUEUED
        )
        assert (given_back.fence, given_back.attempt) == (before + 1, 0)
        assert "No space left on device" in (leasing_store.jobs.events(job.id, None)[-1].message or "")
        stack.enter_context(worker(settings))
        assert reconcile_until_final(leasing_store, settings, job) == []
        full.send_signal(signal.SIGTERM)
        assert full.wait(20) == 0, "it rests, and can be stopped all the same"
    done = leasing_store.jobs.get("default", job.id)
    assert (done.state, done.fence, done.attempt) == (JobState.SUCCEEDED, before + 2, 1)
    claimed = [event.message for event in leasing_store.jobs.events(job.id, None) if event.type == "claimed"]
    assert claimed[0] == f"{socket.gethostname()}:{full.pid}"
    assert claimed[0] != claimed[1]
    assert not (settings.data_dir / "jobs" / job.id / str(before + 1)).exists()
