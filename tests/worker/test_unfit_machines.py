"""Attempts on machines that cannot make them: the job is none the worse for it, where it is not to blame."""

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest
from fixtures.attempts import CPU, QUICK, submit

from nextrapolate.schemas import JobState
from nextrapolate_store.errors import StoreMismatched
from nextrapolate_store.job_folders import JobFolders
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_worker.attempt import run_job
from nextrapolate_worker.nursery import Nursery
from nextrapolate_worker.settings import Computing, WorkerSettings


def test_a_machine_that_lacks_something_costs_no_attempt(
    store: Store,
    store_settings: StoreSettings,
    hatched_nursery: Nursery,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nextrapolate_worker.attempt._REST_SECONDS", 0.01)
    job = submit(store, run_folder, QUICK)
    for _ in range(store_settings.max_attempts + 1):
        run_job(
            store,
            WorkerSettings(store_settings, Computing(device="cuda:99", threads=1)),
            hatched_nursery,
            job.id,
            threading.Event(),
        )
    now = store.jobs.get("default", job.id)
    assert (now.state, now.attempt) == (JobState.QUEUED, 0)
    assert "cuda:99" in (store.jobs.events(job.id, None)[-1].message or "")


@pytest.mark.parametrize(
    ("code", "attempts"), [(errno.EROFS, 0), (errno.EACCES, 0), (errno.EMFILE, 0), (errno.EIO, 1)]
)
def test_a_worker_that_cannot_begin_leaves_the_job_to_others_and_rests(
    code: int,
    attempts: int,
    store: Store,
    store_settings: StoreSettings,
    nursery: Nursery,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stopping = threading.Event()

    def failing(folders: JobFolders, job_id: str, fence: int) -> Path:
        stopping.set()  # or it would rest for a minute
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(JobFolders, "result_folder", failing)
    job = submit(store, run_folder, QUICK)
    run_job(store, WorkerSettings(store_settings, CPU), nursery, job.id, stopping)
    now = store.jobs.get("default", job.id)
    assert (now.state, now.attempt) == (JobState.QUEUED, attempts)
    assert os.strerror(code) in (store.jobs.events(job.id, None)[-1].message or "")
    assert "takes no job for 60 s" in caplog.text


def test_a_machine_without_the_program_of_its_children_costs_no_attempt(
    store: Store,
    store_settings: StoreSettings,
    nursery: Nursery,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nextrapolate_worker.attempt._REST_SECONDS", 0.01)
    monkeypatch.setattr("nextrapolate_worker.nursery.CHILD_COMMAND", ("/nowhere/python",))
    job = submit(store, run_folder, QUICK)
    run_job(store, WorkerSettings(store_settings, CPU), nursery, job.id, threading.Event())
    now = store.jobs.get("default", job.id)
    assert (now.state, now.attempt) == (JobState.QUEUED, 0)


def test_a_machine_whose_children_cannot_start_costs_no_attempt(
    store: Store,
    store_settings: StoreSettings,
    nursery: Nursery,
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("nextrapolate_worker.attempt._REST_SECONDS", 0.01)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "torch.py").write_text("raise ImportError('libcudart.so.12 is not there')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'broken'}:{os.environ.get('PYTHONPATH', '')}")
    job = submit(store, run_folder, QUICK)
    run_job(store, WorkerSettings(store_settings, CPU), nursery, job.id, threading.Event())
    now = store.jobs.get("default", job.id)
    assert (now.state, now.attempt) == (JobState.QUEUED, 0)
    assert "had not read the work yet" in (store.jobs.events(job.id, None)[-1].message or "")
    assert "takes no job" in caplog.text


def test_a_job_whose_folder_is_gone_fails_in_the_end(
    store: Store,
    store_settings: StoreSettings,
    nursery: Nursery,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nextrapolate_worker.attempt._REST_SECONDS", 0.01)
    job = submit(store, run_folder, QUICK)
    shutil.rmtree(store.job_folders.path(job.id))
    for _ in range(store_settings.max_attempts):
        run_job(store, WorkerSettings(store_settings, CPU), nursery, job.id, threading.Event())
    error = store.jobs.get("default", job.id).error
    assert error is not None
    assert (error.code, error.blame) == ("internal-error", "server")
    assert "No such file or directory" in error.detail


def test_a_job_waits_where_the_data_folder_is_not_mounted(
    store: Store, store_settings: StoreSettings, nursery: Nursery, run_folder: Path, tmp_path: Path
) -> None:
    job = submit(store, run_folder, QUICK)
    store_settings.data_dir.rename(tmp_path / "unmounted")
    with pytest.raises(StoreMismatched, match="mount the right one"):
        run_job(store, WorkerSettings(store_settings, CPU), nursery, job.id, threading.Event())
    (tmp_path / "unmounted").rename(store_settings.data_dir)
    assert store.jobs.get("default", job.id) == job
