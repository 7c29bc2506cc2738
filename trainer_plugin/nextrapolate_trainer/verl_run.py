"""One run of verl that takes part: its adapter lies on the workers, the jumper in the driver."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.checkpoint.checkpoint_manager import get_checkpoint_tracker_filename

from nextrapolate_trainer import verl_ranks
from nextrapolate_trainer.adapter import Adapter
from nextrapolate_trainer.jumper import Jumper, JumpRequest
from nextrapolate_trainer.settings import OptimizerState
from nextrapolate_trainer.summary import JumpSummary
from nextrapolate_trainer.verl_ranks import on_every_rank

logger = logging.getLogger("nextrapolate")

ACTOR = "actor"
"""The folder in a checkpoint that holds the actor."""
_BESIDE = "actor.after-jump"


class VerlRun:
    """The worker group on one side, the jumper on the other.

    Args:
        trainer: the trainer.
        jumper: the service.
        optimizer: what becomes of Adam's moments at a jump.
    """

    def __init__(self, trainer: PPOTrainer, jumper: Jumper, optimizer: OptimizerState) -> None:
        self._trainer = trainer
        self._jumper = jumper
        self._optimizer = optimizer
        self._metrics: dict[str, float] = {}

    def collect(self, step: int) -> None:
        """Copy the adapter as it is after `step`; it is posted in the background."""
        started = time.monotonic()
        adapter, *_ = on_every_rank(self._workers, verl_ranks.read_adapter)
        self._jumper.collect(step, adapter)
        self._metrics["next/collect_seconds"] = time.monotonic() - started

    def jump(self, step: int, request: JumpRequest) -> JumpSummary:
        """Swap in an adapter extrapolated from `step`, the last that was collected.

        Raises:
            TrainerPluginError, NextrapolateError, RayError: the run has its own adapter.
        """
        [jump] = self._jumper.jumps_from(step, request)
        offered = time.monotonic()
        reset = jump.modules_to_reset(self._optimizer)
        try:
            self._write(jump.after, reset)
        except Exception:
            self._write(self._jumper.own_adapter(step), frozenset())
            raise
        self._jumper.record(jump)
        swap_seconds = time.monotonic() - offered
        summary = JumpSummary.of(jump, None, swap_seconds=swap_seconds, reset_modules=len(reset))
        self._metrics |= summary.metrics()
        return summary

    def save_again(self, step: int, checkpoint: Path, previous: Path | None) -> None:
        """Put the adapter that was swapped in into the checkpoint just saved: who resumes has jumped.

        The new files are written beside the old ones first. While they are moved over those, `previous` is
        the checkpoint that verl would resume from, if there is one.
        """
        started = time.monotonic()
        beside = checkpoint / _BESIDE
        on_every_rank(self._workers, partial(verl_ranks.save_beside, folder=beside, step=step))
        with withdrawn(checkpoint, previous):
            move = partial(verl_ranks.move_over, source=beside, target=checkpoint / ACTOR)
            on_every_rank(self._workers, move)
            self.save_state(step, checkpoint)
        self._metrics["next/save_seconds"] = time.monotonic() - started

    def save_state(self, step: int, checkpoint: Path) -> None:
        """Write into a checkpoint's folder what the run has to know to go on from there."""
        self._jumper.state(step).write(checkpoint)

    def log_metrics(self, step: int) -> None:
        """Hand what was measured to verl's own loggers."""
        if self._metrics:
            self._trainer.logger.log(data=self._metrics, step=step)
        self._metrics = {}

    def close(self) -> None:
        """Let the last checkpoints reach the service."""
        self._jumper.close()

    @property
    def _workers(self) -> Any:
        return self._trainer.actor_rollout_wg

    def _write(self, adapter: Adapter, reset: frozenset[str]) -> None:
        write = partial(verl_ranks.write_adapter, adapter=ray.put(adapter), reset=reset)
        on_every_rank(self._workers, write)


@contextmanager
def withdrawn(checkpoint: Path, previous: Path | None) -> Iterator[None]:
    """Have verl resume from another checkpoint until this one is whole again; for good, if it never is."""
    tracker = Path(get_checkpoint_tracker_filename(checkpoint.parent))
    latest = tracker.read_text()
    if previous is not None and (previous / ACTOR).is_dir():
        tracker.write_text(previous.name.rpartition("_")[2])
    else:
        tracker.unlink()
    yield
    tracker.write_text(latest)
