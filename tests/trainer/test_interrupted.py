"""A run that is interrupted, or dies: nobody tells its callbacks, and what it has collected arrives."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fixtures.grpo import MakeTrainer
from fixtures.scripted_job import script_series
from fixtures.scripted_server import Handler, ScriptedServer, answer
from transformers import TrainerCallback

from nextrapolate import NExtClient
from nextrapolate_trainer.trl import NExtCallback
from nextrapolate_trainer.uploads import Uploads

PROGRAM = Path(__file__).parent / "programs" / "interrupted.py"
FILE = "adapter_model.safetensors"


@pytest.mark.integration
def test_the_end_of_the_program_waits_for_what_was_collected(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    script_series(scripted, 2)

    def late(handler: Handler) -> None:
        time.sleep(2)
        answer({"missing": [FILE]})(handler)

    scripted.on("POST", "/series/s1/checkpoints/2", late)
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), scripted.url],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode != 0
    assert ended.stderr.rstrip().endswith("KeyboardInterrupt")
    assert f"/series/s1/checkpoints/2/{FILE}" in [each.path for each in scripted.received]


def test_no_thread_is_left_where_nothing_is_to_be_posted() -> None:
    before = threading.active_count()
    uploads = Uploads(lambda step, adapter: None, lambda: None)
    for step in (10, 20):
        uploads.put(step, {})
        uploads.wait_for(step, timeout=60)
    ends = time.monotonic() + 60
    while threading.active_count() > before:
        assert time.monotonic() < ends
        time.sleep(0.01)


class DiesOnce(TrainerCallback):
    """Ends the first run that comes to step 3."""

    died = False

    def on_step_end(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        if state.global_step == 3 and not self.died:
            self.died = True
            raise RuntimeError("no judge answers")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_run_that_cannot_begin_does_not_go_on_in_the_series_of_one_that_died(
    make_trainer: MakeTrainer,
    scripted: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    script_series(scripted, 2, 4)
    trainer = make_trainer(max_steps=4)
    with NExtClient(scripted.url) as client:
        NExtCallback(client, collect_every=2, jump_at=8).attach(trainer)
        trainer.add_callback(DiesOnce())
        with pytest.raises(RuntimeError, match="no judge answers"):
            trainer.train()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        trainer.train()
    assert "nextrapolate takes no part in this run: [Errno 2]" in caplog.text
    posted = [each.path for each in scripted.received if each.method == "PUT"]
    assert posted == [f"/series/s1/checkpoints/2/{FILE}"], "by the first run"
