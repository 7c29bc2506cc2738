"""Children that die before they were told what to do, and one that is allowed little."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from fixtures.adapters import write_run
from fixtures.jobs import job_over, run_inputs

from nextrapolate.schemas import NoneMethod
from nextrapolate_store.records import JobInputs
from nextrapolate_worker import nursery
from nextrapolate_worker.messages import Done, Progress, Ready, Start
from nextrapolate_worker.nursery import Child, ChildDied
from nextrapolate_worker.settings import Computing


def start(run: Path, inputs: JobInputs, folder: Path) -> Start:
    return Start(
        job="j1",
        fence=1,
        tenant="default",
        request=job_over(run, NoneMethod()),
        inputs=inputs,
        data_dir=folder,
        folder=folder,
        stages=folder / "stages",
        computing=Computing(device="cpu", threads=1),
    )


def test_a_child_that_died_while_it_waited_says_so(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nursery, "CHILD_COMMAND", ("sleep", "60"))
    before = set(psutil.Process().children())
    child = Child()
    (process,) = set(psutil.Process().children()) - before
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    work = start(run_folder, JobInputs(()), tmp_path)  # a short message stays in the buffer of the pipe
    child.start(work)
    with pytest.raises(ChildDied) as died:
        child.answer(timeout=60)
    assert died.value.code == -signal.SIGKILL


def test_more_checkpoints_than_a_process_may_have_open_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", range(1, 65), modules={"layers.0.mlp": (6, 5)})
    of_child = f"ulimit -Sn 50; exec {sys.executable} -m nextrapolate_worker.child"
    monkeypatch.setattr(nursery, "CHILD_COMMAND", ("sh", "-c", of_child))
    with Child() as child:
        child.start(start(run, run_inputs(run), tmp_path))
        while isinstance(answer := child.answer(timeout=60), Ready | Progress):
            pass
    assert isinstance(answer, Done)
