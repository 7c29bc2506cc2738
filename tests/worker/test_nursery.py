"""Children that die before they were told what to do."""

import os
import signal
from pathlib import Path

import psutil
import pytest
from fixtures.jobs import job_over

from nextrapolate.schemas import NoneMethod
from nextrapolate_store.records import JobInputs
from nextrapolate_worker import nursery
from nextrapolate_worker.messages import Start
from nextrapolate_worker.nursery import Child, ChildDied


def test_a_child_that_died_while_it_waited_says_so(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nursery, "CHILD_COMMAND", ("sleep", "60"))
    before = set(psutil.Process().children())
    child = Child()
    (process,) = set(psutil.Process().children()) - before
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    work = Start(
        job="j1",
        fence=1,
        tenant="default",
        request=job_over(run_folder, NoneMethod()),
        inputs=JobInputs(()),  # a short message stays in the buffer of the pipe
        data_dir=tmp_path,
        folder=tmp_path,
        stages=tmp_path,
        device="cpu",
        threads=1,
    )
    child.start(work)
    with pytest.raises(ChildDied) as died:
        child.answer(timeout=60)
    assert died.value.code == -signal.SIGKILL
