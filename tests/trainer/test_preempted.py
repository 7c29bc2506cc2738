"""A machine that is taken away: SIGTERM, and a checkpoint by `enable_jit_checkpoint` wherever the run is."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.grpo import MakeTrainer
from fixtures.scripted_job import no_jump_left_waiting, script_job, script_series
from fixtures.scripted_server import Handler, ScriptedServer, hang_up
from fixtures.server import EmbeddedServer
from transformers import TrainerCallback

from nextrapolate import Gate, NExtClient
from nextrapolate.schemas import JobState
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.trl import NExtCallback
from nextrapolate_trainer.trl_internals import Trainer, jit_managers

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Preempted(TrainerCallback):
    """Has the trainer save and stop, as if SIGTERM had come a while ago: at the event of a step."""

    def __init__(self, trainer: Trainer, event: str, step: int) -> None:
        [self._manager] = jit_managers(trainer)
        self._step = step
        setattr(self, event, self._ask)

    def _ask(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._manager.is_checkpoint_requested = state.global_step == self._step


@pytest.fixture
def client(embedded_server: EmbeddedServer) -> Iterator[NExtClient]:
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        yield client


def jumping(client: NExtClient) -> NExtCallback:
    """Collect every 2 steps, jump after steps 4 and 8."""
    return NExtCallback(
        client,
        collect_every=2,
        jump_at=4,
        jump_every=4,
        horizon_steps=2,
        method="weight-extrapolation",
        gate=Gate(min_backtest_cosine=-1),
    )


def test_a_run_that_waits_for_a_jump_saves_and_stops(
    make_trainer: MakeTrainer, scripted: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script_series(scripted, 2, 4)
    script_job(scripted, JobState.QUEUED)
    over = threading.Event()

    def never_done(handler: Handler) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        over.wait(60)
        hang_up(handler)

    scripted.on("GET", "/jobs/j1/events", never_done)
    trainer = make_trainer(max_steps=6, save_steps=4, enable_jit_checkpoint=True)
    [manager] = jit_managers(trainer)
    manager.kill_wait = 0
    with NExtClient(scripted.url) as client, no_jump_left_waiting():
        plugin = jumping(client).attach(trainer)
        started = time.monotonic()
        trainer.train()
        assert time.monotonic() - started < 30
        script_job(scripted, JobState.CANCELLED)
        over.set()
    assert (trainer.state.global_step, plugin.jumps) == (5, [])
    assert "/jobs/j1/cancel" in [each.path for each in scripted.received], "it would run for nobody"
    [told] = [record for record in caplog.records if "no jump after step 4" in record.getMessage()]
    assert told.levelno == logging.WARNING
    assert told.getMessage().endswith("the run has been asked to stop, and does not wait for the service")
    assert RunState.read(tmp_path / "run" / "checkpoint-4").jumps == ()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("event", "step", "at", "made", "left"),
    [
        ("on_step_begin", 4, 4, [4], [8]),
        ("on_step_end", 4, 4, [], [4, 8]),
        ("on_pre_optimizer_step", 3, 4, [], [4, 8]),
        ("on_pre_optimizer_step", 4, 5, [4], [8]),
    ],
    ids=["in the step after a jump", "as a jump is due", "before a jump is due", "after that step"],
)
def test_a_preempted_run_goes_on_with_its_series_and_its_jumps(
    event: str,
    step: int,
    at: int,
    made: list[int],
    left: list[int],
    make_trainer: MakeTrainer,
    client: NExtClient,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options: dict[str, Any] = {"max_steps": 9, "save_steps": 2, "enable_jit_checkpoint": True}
    trainer = make_trainer(**options)
    first = jumping(client).attach(trainer)
    trainer.add_callback(Preempted(trainer, event, step))
    left_over = tmp_path / "run" / f"checkpoint-{at + 1}" / "nextrapolate.json"  # by a run before, further on
    left_over.parent.mkdir(parents=True)
    left_over.write_text("its own")
    trainer.train()
    assert left_over.read_text() == "its own"
    assert [jump.step for jump in first.jumps] == made
    saved = RunState.read(tmp_path / "run" / f"checkpoint-{at}")
    assert [jump.step for jump in saved.jumps] == made

    trainer = make_trainer(**options)
    resumed = jumping(client).attach(trainer)
    trainer.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{at}"))
    assert [jump.step for jump in resumed.jumps] == left
    assert "a new series begins" not in caplog.text
    state = RunState.read(tmp_path / "run" / "checkpoint-9")
    series = client.get_series(str(state.series))
    assert [info.step for info in series.checkpoints] == [2, 4, 6, 8]
    assert [jump.step for jump in series.jumps] == [4, 8]
    before = {info.step: info.files for info in client.get_series(str(saved.series)).checkpoints}
    assert [info.files for info in series.checkpoints if info.step <= 4] == [before[2], before[4]]
