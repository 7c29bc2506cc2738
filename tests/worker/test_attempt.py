"""One attempt against a real Redis, with a real child."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.attempts import CPU, QUICK, state, submit
from fixtures.jobs import job_over, run_inputs
from fixtures.processes import children
from redis import Redis

from nextrapolate.schemas import JobState, NextMethod, Report, Stage
from nextrapolate_store.records import FileSource, InputAdapter, JobInputs, JobRecord
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_worker.attempt import run_job
from nextrapolate_worker.messages import Done, Progress
from nextrapolate_worker.nursery import Nursery
from nextrapolate_worker.settings import WorkerSettings

ENDLESS = NextMethod(preset="paper", horizon_steps=20, epochs=100_000, hidden_size=2048)


def while_running(
    store: Store,
    settings: StoreSettings,
    nursery: Nursery,
    job: JobRecord,
    act: Callable[[int], None],
    stopping: threading.Event | None = None,
) -> None:
    """Make an attempt, and act on it (with the child's process id) once its predictor is training."""
    worker = WorkerSettings(settings, CPU)
    before = children()
    attempt = threading.Thread(
        target=run_job, args=(store, worker, nursery, job.id, stopping or threading.Event())
    )
    attempt.start()
    try:
        deadline = time.monotonic() + 240
        while store.jobs.get("default", job.id).stage != "fit":
            assert attempt.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (child,) = children() - before
        act(child)
    finally:
        attempt.join(240)
    assert not attempt.is_alive()


@pytest.mark.integration
def test_a_job_is_done_and_committed(
    store: Store, store_settings: StoreSettings, nursery: Nursery, run_folder: Path
) -> None:
    job = submit(store, run_folder, QUICK)
    run_job(store, WorkerSettings(store_settings, CPU), nursery, job.id, threading.Event())
    done = store.jobs.get("default", job.id)
    assert (done.state, done.attempt, done.progress) == (JobState.SUCCEEDED, 1, 1.0)
    path = store.job_folders.result_path(done, "report.json")
    assert path.stat().st_size == done.artifacts["report.json"].bytes
    report = Report.model_validate_json(path.read_bytes())
    assert (report.job, report.made_at) == (done.id, done.started_at)


def test_a_second_wake_up_does_nothing(
    store: Store, store_settings: StoreSettings, hatched_nursery: Nursery, run_folder: Path
) -> None:
    job = submit(store, run_folder, QUICK)
    for _ in range(2):
        run_job(store, WorkerSettings(store_settings, CPU), hatched_nursery, job.id, threading.Event())
    assert store.jobs.get("default", job.id).attempt == 1


def endings(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """The levels and words of the lines that say how attempts ended."""
    logged = [(record.levelno, record.getMessage()) for record in caplog.records]
    return [(level, message) for level, message in logged if " after " in message]


def test_the_users_mistake_fails_at_once_and_says_what(
    store: Store,
    store_settings: StoreSettings,
    hatched_nursery: Nursery,
    run_folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "nextrapolate_worker.attempt")
    job = submit(store, run_folder, QUICK)
    model = run_folder / "checkpoint-50" / "adapter_model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    run_job(store, WorkerSettings(store_settings, CPU), hatched_nursery, job.id, threading.Event())
    failed = store.jobs.get("default", job.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.blame == "user"
    assert "50" in failed.error.detail
    ((level, message),) = endings(caplog)
    assert level == logging.INFO, "an operator cannot mend it"
    assert message.endswith(f"{failed.error.code}: {failed.error.detail}")


def test_an_uploaded_file_is_named_by_its_step(
    store: Store, store_settings: StoreSettings, hatched_nursery: Nursery, run_folder: Path
) -> None:
    config = run_folder / "checkpoint-50" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 77}))

    def uploaded(adapter: InputAdapter) -> InputAdapter:
        model, config = (
            store.blobs.put_bytes("default", store.blobs.path(source, "default").read_bytes()).sha256
            for source in (adapter.model, adapter.config)
            if isinstance(source, FileSource)
        )
        return InputAdapter(adapter.step, FileSource("blob", model), FileSource("blob", config))

    inputs = JobInputs(tuple(map(uploaded, run_inputs(run_folder).checkpoints)))
    request = job_over(run_folder, QUICK)
    job = store.jobs.submit("default", request, inputs, idempotency_key=None, body_digest="")
    run_job(store, WorkerSettings(store_settings, CPU), hatched_nursery, job.id, threading.Event())
    error = store.jobs.get("default", job.id).error
    assert error is not None
    assert error.detail.startswith("checkpoint-50/adapter_model.safetensors: ")
    assert "unlike checkpoint-10/adapter_model.safetensors" in error.detail
    assert str(store_settings.data_dir) not in error.detail


def test_a_killed_child_costs_an_attempt_and_no_more(
    store: Store,
    store_settings: StoreSettings,
    hatched_nursery: Nursery,
    run_folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = submit(store, run_folder, ENDLESS)
    for attempt in range(1, store_settings.max_attempts + 1):
        while_running(
            store, store_settings, hatched_nursery, job, lambda child: os.kill(child, signal.SIGKILL)
        )
        now = store.jobs.get("default", job.id)
        assert now.attempt == attempt
        assert now.state is (JobState.FAILED if attempt == store_settings.max_attempts else JobState.QUEUED)
    error = store.jobs.get("default", job.id).error
    assert error is not None
    assert (error.code, error.blame) == ("child-died", "server")
    assert "memory" in error.detail
    told = endings(caplog)
    assert [level for level, _ in told] == [logging.WARNING] * store_settings.max_attempts
    assert all(message.endswith(f"child-died: {error.detail}") for _, message in told)


@pytest.mark.integration
def test_a_cancel_frees_the_device(
    store: Store, store_settings: StoreSettings, nursery: Nursery, run_folder: Path
) -> None:
    job = submit(store, run_folder, ENDLESS)
    ended: list[int] = []

    def cancel(child: int) -> None:
        store.jobs.cancel("default", job.id)
        ended.append(child)

    while_running(store, store_settings, nursery, job, cancel)
    assert state(store, job) is JobState.CANCELLED
    assert not Path(f"/proc/{ended[0]}").exists()


@pytest.fixture
def hung_nursery(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    """Its children live, say nothing or the one line that is given, and never read what they are told."""
    says = getattr(request, "param", "")
    command = ("sh", "-c", 'printf %s "$0"; exec sleep 600', says)
    monkeypatch.setattr("nextrapolate_worker.nursery.CHILD_COMMAND", command)
    nursery = Nursery()
    yield nursery
    nursery.close()


def test_a_child_that_never_reads_its_work_can_be_cancelled(
    store: Store, store_settings: StoreSettings, hung_nursery: Nursery, run_folder: Path
) -> None:
    inputs = JobInputs(run_inputs(run_folder).checkpoints * 100)  # more than a pipe holds
    request = job_over(run_folder, QUICK)
    job = store.jobs.submit("default", request, inputs, idempotency_key=None, body_digest="")
    worker, before = WorkerSettings(replace(store_settings, lease_seconds=3), CPU), children()
    attempt = threading.Thread(
        target=run_job,
        args=(store, worker, hung_nursery, job.id, threading.Event()),
        daemon=True,  # one that waits for the child would keep the test run from ending
    )
    attempt.start()
    while state(store, job) is not JobState.RUNNING:
        assert attempt.is_alive()
        time.sleep(0.02)
    store.jobs.cancel("default", job.id)
    attempt.join(120)
    assert not attempt.is_alive()
    assert state(store, job) is JobState.CANCELLED
    assert children() == before


def test_nobody_waits_for_the_end_of_a_child_that_is_done_but_the_next_child(
    store: Store,
    store_settings: StoreSettings,
    nursery: Nursery,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = 'trap "" TERM; printf %s "$0"; exec sleep 600'
    command = ("sh", "-c", script, Done(artifacts={}, stage_seconds={}).line())
    monkeypatch.setattr("nextrapolate_worker.nursery.CHILD_COMMAND", command)
    monkeypatch.setattr("nextrapolate_worker.nursery._GRACE_SECONDS", 60.0)  # it ends by the test, no earlier
    job, before = submit(store, run_folder, QUICK), children()
    worker = WorkerSettings(store_settings, CPU)
    attempt = threading.Thread(
        target=run_job, args=(store, worker, nursery, job.id, threading.Event()), daemon=True
    )
    attempt.start()
    while not state(store, job).is_final:
        assert attempt.is_alive()
        time.sleep(0.02)
    assert state(store, job) is JobState.SUCCEEDED
    (child,) = children() - before
    assert attempt.is_alive(), "the next child starts when it returns, and finds the device free"
    os.kill(child, signal.SIGKILL)
    attempt.join(120)
    assert not attempt.is_alive()
    assert children() == before
    assert state(store, job) is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("hung_nursery", "limit", "told"),
    [
        ("", "_BEGINS_WITHIN_SECONDS", "did not begin within 0.1 s"),
        (
            Progress(stage=Stage.EXTRACT, fraction=0.5).line(),
            "_SPEAKS_WITHIN_SECONDS",
            "has said nothing for 0.1 s, in the stage extract",
        ),
    ],
    indirect=["hung_nursery"],
    ids=["at first", "later"],
)
def test_a_child_that_hangs_costs_an_attempt_and_no_more(
    store: Store,
    store_settings: StoreSettings,
    hung_nursery: Nursery,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    told: str,
) -> None:
    monkeypatch.setattr(f"nextrapolate_worker.attempt.{limit}", 0.1)
    job, before = submit(store, run_folder, QUICK), children()
    for _ in range(store_settings.max_attempts):
        assert state(store, job) is JobState.QUEUED
        run_job(store, WorkerSettings(store_settings, CPU), hung_nursery, job.id, threading.Event())
    failed = store.jobs.get("default", job.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.blame) == ("child-hung", "server")
    assert told in failed.error.detail
    assert children() == before


def test_a_worker_that_has_lost_its_job_warns_of_it(
    store: Store,
    store_settings: StoreSettings,
    hung_nursery: Nursery,
    run_folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = submit(store, run_folder, QUICK)
    frozen = WorkerSettings(replace(store_settings, lease_seconds=0.1), CPU)  # for longer than its lease
    run_job(store, frozen, hung_nursery, job.id, threading.Event())
    ((level, message),) = endings(caplog)
    assert level == logging.WARNING
    assert message.startswith("lost the lease after ")


def test_a_job_of_a_later_version_is_left_to_a_later_worker_and_told_of_once(
    store: Store,
    store_settings: StoreSettings,
    hatched_nursery: Nursery,
    run_folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job, worker = submit(store, run_folder, QUICK), WorkerSettings(store_settings, CPU)
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:
        request = str(redis.hget(f"next:job:{job.id}", "request"))
        later = json.dumps(json.loads(request) | {"of_a_later_version": 1})
        redis.hset(f"next:job:{job.id}", "request", later)
        for _ in range(store_settings.max_attempts + 1):
            run_job(store, worker, hatched_nursery, job.id, threading.Event())
        redis.hset(f"next:job:{job.id}", "request", request)
    assert store.jobs.get("default", job.id) == job
    (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "left in the queue" in told
    run_job(store, worker, hatched_nursery, job.id, threading.Event())
    assert state(store, job) is JobState.SUCCEEDED


def test_a_worker_that_is_asked_to_stop_gives_its_job_back(
    store: Store, store_settings: StoreSettings, hatched_nursery: Nursery, run_folder: Path
) -> None:
    job = submit(store, run_folder, ENDLESS)
    stopping, ended = threading.Event(), []

    def stop(child: int) -> None:
        stopping.set()
        ended.append(child)

    while_running(store, store_settings, hatched_nursery, job, stop, stopping)
    now = store.jobs.get("default", job.id)
    assert (now.state, now.attempt) == (JobState.QUEUED, 0)
    assert not Path(f"/proc/{ended[0]}").exists()
    run_job(store, WorkerSettings(store_settings, CPU), hatched_nursery, job.id, stopping)
    assert store.jobs.get("default", job.id) == now, "a stopping worker takes nothing new"
