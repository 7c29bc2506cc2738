"""What one attempt has made is taken over by the next, unless anything it depends on has changed."""

import dataclasses
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.jobs import job_over, run_inputs
from fixtures.processes import children
from safetensors import SafetensorError
from safetensors.torch import save_file

from nextrapolate.schemas import (
    AutoregressionMethod,
    JobState,
    Method,
    NextMethod,
    Stage,
)
from nextrapolate_numerics import AdapterFiles, Backtest, Extraction, Trajectory, Update, backtest, extract
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_worker import pipeline
from nextrapolate_worker.attempt import run_job
from nextrapolate_worker.carriers import load_carrier, save_carrier
from nextrapolate_worker.messages import Start
from nextrapolate_worker.methods import NUMERICS, numerics_method
from nextrapolate_worker.nursery import Nursery
from nextrapolate_worker.settings import Computing, WorkerSettings
from nextrapolate_worker.tasks import extrapolation

PAPER = NextMethod(preset="paper", horizon_steps=20, epochs=100, hidden_size=32)
METHODS: list[Method] = [
    *(kind(horizon_steps=20) for kind in NUMERICS),
    NextMethod(horizon_steps=20),
    PAPER,
]
QUICK = AutoregressionMethod(horizon_steps=20)
CPU = Computing(device="cpu", threads=1)
STAGES = ["extraction", "update", "backtest"]


def equal(one: Any, other: Any) -> bool:
    """Compare carriers to the last bit, types and order included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
    if is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return all(equal(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_carrier_comes_back_as_it_was_and_as_it_would_be_made_again(
    method: Method, run_folder: Path, tmp_path: Path
) -> None:
    adapters = [
        AdapterFiles(
            step,
            run_folder / f"checkpoint-{step}" / "adapter_model.safetensors",
            run_folder / f"checkpoint-{step}" / "adapter_config.json",
        )
        for step in range(10, 130, 10)
    ]
    trajectory, algorithm = Trajectory.open(adapters), numerics_method(method)
    extraction = extract(trajectory, algorithm, 20, geometry=True, device="cpu")
    update = algorithm.fit(extraction, 20)
    assert equal(algorithm.fit(extract(trajectory, algorithm, 20, geometry=True, device="cpu"), 20), update)
    given = {Trajectory: trajectory, torch.device: torch.device("cpu")}
    carriers = [
        (Extraction, extraction),
        (Update, update),
        (Backtest, backtest(algorithm, extraction, 20)),
    ]
    for kind, carrier in carriers:
        save_carrier(carrier, tmp_path / "carrier", given)
        assert equal(load_carrier(kind, tmp_path / "carrier", given), carrier)


def test_what_is_no_carrier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object is nothing"):
        save_carrier(object(), tmp_path / "carrier", {})
    for content in (b"", b"{}", b"\x80\x04."):
        (tmp_path / "carrier").write_bytes(content)
        with pytest.raises(ValueError, match="carrier"):
            load_carrier(Update, tmp_path / "carrier", {})
    for tree in ("null", '["Popen", {}]', '["Combination", {}]', "[]", "3"):
        save_file({}, tmp_path / "carrier", metadata={"tree": tree})
        with pytest.raises(ValueError, match="carrier"):
            load_carrier(Update, tmp_path / "carrier", {})


# A job, attempted twice -------------------------------------------------------------------------------------


class Later(Computing):
    """How a later version computes, which has one more setting."""

    tf32: bool = False


def attempt(
    number: int,
    run: Path,
    job: Path,
    method: Method = QUICK,
    computing: Computing = CPU,
    tell: Callable[[Stage, float], None] = lambda *_: None,
) -> str:
    """Make an attempt in a folder of its own; gives the digest of the adapter."""
    folder = job / str(number)
    folder.mkdir(parents=True)
    work = Start(
        job="01JOB",
        fence=number,
        tenant="default",
        request=job_over(run, method),
        inputs=run_inputs(run),
        data_dir=job / "data",
        folder=folder,
        stages=job / "stages",
        computing=computing,
    )
    return pipeline.run(work, tell).artifacts["adapter_model.safetensors"].sha256


Watch = Callable[[Method], list[str]]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Tells which of the costly stages a job with this method goes through from now on, in order."""

    def watch(method: Method) -> list[str]:
        made: list[str] = []

        def note(owner: object, name: str, stage: str) -> None:
            function = getattr(owner, name)

            def noted(*args: Any, **options: Any) -> Any:
                if made[-1:] != ["backtest"]:  # which fits, too
                    made.append(stage)
                return function(*args, **options)

            monkeypatch.setattr(owner, name, noted)

        note(extrapolation, "extract", "extraction")
        note(type(numerics_method(method)), "fit", "update")
        note(extrapolation, "backtest", "backtest")
        return made

    return watch


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_next_attempt_takes_over_what_is_finished_and_gives_the_same_bytes(
    method: Method, run_folder: Path, tmp_path: Path, watch: Watch
) -> None:
    made = watch(method)
    first = attempt(1, run_folder, tmp_path / "job", method)
    assert made == STAGES
    made.clear()
    assert attempt(2, run_folder, tmp_path / "job", method) == first
    assert made == []


def test_only_what_is_there_is_taken_over(run_folder: Path, tmp_path: Path, watch: Watch) -> None:
    first = attempt(1, run_folder, tmp_path / "job")
    kept(tmp_path / "job")["backtest"].unlink()
    made = watch(QUICK)
    assert attempt(2, run_folder, tmp_path / "job") == first
    assert made == ["backtest"]


def test_a_damaged_file_is_made_again(run_folder: Path, tmp_path: Path, watch: Watch) -> None:
    first = attempt(1, run_folder, tmp_path / "job")
    damaged = kept(tmp_path / "job")["update"]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    made = watch(QUICK)
    assert attempt(2, run_folder, tmp_path / "job") == first
    assert made == ["update"]


@pytest.mark.parametrize("changed", ["weights", "config", "computing", "version"])
def test_what_depends_on_something_that_has_changed_is_made_again(
    changed: str, run_folder: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(1, run_folder, tmp_path / "job")
    before = set(kept(tmp_path / "job").values())
    checkpoint = run_folder / "checkpoint-50"
    if changed == "weights":
        other = run_folder / "checkpoint-60" / "adapter_model.safetensors"
        (checkpoint / "adapter_model.safetensors").write_bytes(other.read_bytes())
    elif changed == "config":
        config = checkpoint / "adapter_config.json"
        config.write_text(config.read_text() + "\n")
    elif changed == "version":
        monkeypatch.setattr("nextrapolate_worker.loading.versions", lambda: {"nextrapolate": "9"})
    made = watch(QUICK)
    threads = 2 if changed == "computing" else 1
    attempt(2, run_folder, tmp_path / "job", computing=Computing(device="cpu", threads=threads))
    assert made == STAGES
    assert len(kept_files(tmp_path / "job") - before) == len(STAGES)


def test_a_setting_that_nobody_thought_of_is_taken_for_one_that_matters(
    run_folder: Path, tmp_path: Path, watch: Watch
) -> None:
    attempt(1, run_folder, tmp_path / "job", computing=Later(device="cpu", threads=1))
    made = watch(QUICK)
    attempt(2, run_folder, tmp_path / "job", computing=Later(device="cpu", threads=1, tf32=True))
    assert made == STAGES


def test_what_a_device_is_called_does_not_matter(
    run_folder: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    first = attempt(1, run_folder, tmp_path / "job", computing=Computing(device="auto", threads=1))
    made = watch(QUICK)
    assert attempt(2, run_folder, tmp_path / "job") == first
    assert made == []


def test_nothing_is_kept_of_an_attempt_whose_folder_is_gone(run_folder: Path, tmp_path: Path) -> None:
    """The job has ended elsewhere, and all that was kept for it has been cleared away."""

    def lose(stage: Stage, _: float) -> None:
        if stage is Stage.EXTRACT:
            shutil.rmtree(tmp_path / "job" / "1", ignore_errors=True)

    with pytest.raises(SafetensorError, match="No such file"):
        attempt(1, run_folder, tmp_path / "job", tell=lose)
    assert list((tmp_path / "job").iterdir()) == []


def test_a_disk_that_is_full_costs_the_job_nothing(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "stages").write_text("no folder")
    assert attempt(1, run_folder, tmp_path / "job") == attempt(1, run_folder, tmp_path / "another job")


def test_a_disk_that_is_full_under_safetensors_costs_the_job_nothing(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    whole = attempt(1, run_folder, tmp_path / "another job")
    monkeypatch.setattr("nextrapolate_worker.kept.save_carrier", fails)
    assert attempt(1, run_folder, tmp_path / "job") == whole
    assert not kept_files(tmp_path / "job")


def kept_files(job: Path) -> set[Path]:
    return set((job / "stages").iterdir())


def kept(job: Path) -> dict[str, Path]:
    """Files by stage, of which there is one each."""
    return {path.name.partition("-")[0]: path for path in kept_files(job)}


def test_a_job_whose_child_was_killed_goes_on_where_it_was(
    store: Store,
    store_settings: StoreSettings,
    run_folder: Path,
    hatched_nursery: Nursery,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nextrapolate_worker.lease._PROGRESS_SECONDS", 0.0)  # told as soon as it begins
    method = NextMethod(preset="paper", horizon_steps=20, epochs=100)
    worker, never = WorkerSettings(store_settings, CPU), threading.Event()
    request, inputs = job_over(run_folder, method), run_inputs(run_folder)
    job = store.jobs.submit("default", request, inputs, idempotency_key=None, body_digest="").id
    before = children()
    first = threading.Thread(target=run_job, args=(store, worker, hatched_nursery, job, never))
    first.start()
    deadline = time.monotonic() + 240
    while store.jobs.get("default", job).stage is not Stage.BACKTEST:
        assert first.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (child,) = children() - before
    os.kill(child, signal.SIGKILL)
    first.join(240)
    assert store.jobs.get("default", job).state is JobState.QUEUED
    assert "taken over" not in capfd.readouterr().err
    run_job(store, worker, hatched_nursery, job, never)
    done = store.jobs.get("default", job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)
    said = capfd.readouterr().err
    taken_over = [stage for stage in STAGES if f"{stage} is taken over from an earlier attempt" in said]
    assert taken_over == ["extraction", "update"]
    store.recorder.record_ends()
    assert not (store_settings.data_dir / "jobs" / job / "stages").exists()
