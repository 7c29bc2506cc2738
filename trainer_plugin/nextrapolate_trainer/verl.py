"""verl: a checkpoint callback that collects a run's adapter, and swaps in one that the service extrapolated.

    trainer.checkpoint_callback_class=nextrapolate_trainer.verl.NExtCheckpointCallback
    +nextrapolate.jump_at=40 +nextrapolate.jump_every=20 +nextrapolate.horizon_steps=100

verl calls it after each save and before it sends the weights to the rollout engine: what is swapped in then
generates the next step's answers. The checkpoint of a jump is saved again, with the new adapter.
"""

import logging
import os
import threading
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

from nextrapolate import NExtClient
from nextrapolate.schemas import ADAPTER_MODEL
from nextrapolate_trainer import verl_ranks
from nextrapolate_trainer.adapter import Adapter, copied, was_trained
from nextrapolate_trainer.errors import StateError
from nextrapolate_trainer.fail_open import fail_open
from nextrapolate_trainer.jumper import Jumper, JumpRequest
from nextrapolate_trainer.series import Run
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.summary import JumpSummary
from nextrapolate_trainer.verl_run import VerlRun
from nextrapolate_trainer.verl_settings import VerlSettings, check_served

logger = logging.getLogger("nextrapolate")


class NExtCheckpointCallback(CheckpointCallback):  # type: ignore[misc] # verl ships no types
    """Extrapolates a verl run from inside; verl makes it, on the driver, from the run's configuration.

    Once training has begun nothing it does ends the run or, short of a jump, changes it: whatever fails is
    logged as an error by the logger "nextrapolate". A resumed run goes on with the series and the schedule
    where its checkpoint was; a jump that was due there and was not made is made at the next save.

    Args:
        config: verl's configuration; its group `nextrapolate` is `VerlSettings`.

    Raises:
        UnsupportedRunError: the run is of a kind that cannot be served; says what to change.
        ParameterError: the method or one of its parameters is not known, or out of range.
        ValueError: a setting is not known or of no use, or jumps do not fall on steps at which verl saves.
        ConfigurationError: the service's address or key cannot be used.
    """

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        # The process is verl's own: nobody else can let through what this has to say.
        logger.setLevel(os.environ.get("VERL_LOGGING_LEVEL", "INFO"))
        check_served(config)
        self._settings = VerlSettings.of(config)
        self._schedule = self._settings.schedule(config.trainer.save_freq)
        self._request = JumpRequest([self._settings.make_method()], self._settings.only_if_recommended)
        finish = self._settings.make_finish()
        self._finish = None if finish is None else JumpRequest([finish])
        self._client = NExtClient(self._settings.url)
        self._previous = _resumed_from(config)
        self._resumed = _state_of(self._previous) if self._previous else None
        self._overdue = self._resumed is not None and self._missed_jump(self._resumed)
        # What a run that is met on its way began with is its checkpoint's to tell.
        self._beginning = (None, False) if self._previous else _beginning(config)
        self._run: VerlRun | None = None
        self.jumps: list[JumpSummary] = []
        # The first save may be hours away.
        threading.Thread(target=self._try_service, name="service", daemon=True).start()

    def on_save(self, trainer: PPOTrainer, global_step: int, checkpoint_dir: str, **_: Any) -> None:
        """Collect what verl has just saved, and jump from there where the schedule says so."""
        with fail_open(f"nextrapolate does nothing more after the save of step {global_step}"):
            self._after_save(trainer, global_step, Path(checkpoint_dir))

    def _try_service(self) -> None:
        with fail_open("at present, checkpoints cannot be sent to the service"):
            self._client.list_series(limit=1)

    def _after_save(self, trainer: PPOTrainer, step: int, checkpoint: Path) -> None:
        previous, self._previous = self._previous, checkpoint
        last = step >= trainer.total_training_steps
        if self._schedule.collects_after(step) or (last and self._finish):
            with fail_open(f"the checkpoint of step {step} is not collected"):
                self._run = self._run or self._begun(trainer, step)
                self._run.collect(step)
        if (run := self._run) is None:
            return
        with fail_open(f"a run resumed from step {step} will not know its series"):
            run.save_state(step, checkpoint)
        request = self._finish if last else self._due_after(step)
        if request is not None:
            follows = "the last: the run ends with" if last else "training goes on from"
            with fail_open(f"no jump after step {step}, {follows} its own weights"):
                self.jumps.append(run.jump(step, request))
                logger.log(self.jumps[-1].log_level, "%s", self.jumps[-1])
                with fail_open(
                    f"the checkpoint of step {step} may be incomplete, or hold the weights from before the "
                    "jump"
                ):
                    run.save_again(step, checkpoint, previous)
        with fail_open(f"the metrics of step {step} are lost"):
            run.log_metrics(step)
        if last:
            with fail_open("the last checkpoints may not have reached the service"):
                run.close()

    def _due_after(self, step: int) -> JumpRequest | None:
        if not self._schedule.collects_after(step):
            return None
        overdue, self._overdue = self._overdue, False
        return self._request if overdue or self._schedule.jumps_after(step) else None

    def _missed_jump(self, resumed: RunState) -> bool:
        """Tell whether a jump was due at the checkpoint that the run goes on from, and is not in it."""
        made = {jump.step for jump in resumed.jumps}
        return self._schedule.jumps_after(resumed.step) and resumed.step not in made

    def _begun(self, trainer: PPOTrainer, step: int) -> VerlRun:
        lora_config, *_ = verl_ranks.on_every_rank(trainer.actor_rollout_wg, verl_ranks.adapter_config)
        has_jumped = self._overdue or (self._resumed is not None and bool(self._resumed.jumps))
        end = trainer.total_training_steps
        if told := self._schedule.never_comes_to(step, end, has_jumped=has_jumped):
            logger.warning("%s", told)
        if told := self._schedule.collects_too_many(end):
            logger.warning("%s", told)
        name = self._settings.name or self.config.trainer.experiment_name
        base_model = self.config.actor_rollout_ref.model.path
        start, is_known = self._beginning
        run = Run(name, base_model, lora_config, start, from_start=is_known)
        next_jump = step if self._overdue else self._schedule.next_jump(step, end)
        jumper = Jumper(self._client, run, self._settings, self._resumed, next_jump)
        return VerlRun(trainer, jumper, self._settings.optimizer)


def _beginning(config: DictConfig) -> tuple[Adapter | None, bool]:
    """Return the trained adapter that a new run begins with, None for the base; and whether that is known."""
    folder = config.actor_rollout_ref.model.get("lora_adapter_path")
    if not folder:
        return None, True
    try:
        adapter = copied(load_file(Path(folder) / ADAPTER_MODEL))
    except (OSError, SafetensorError) as error:
        logger.warning("the series does not include the adapter that the run starts from: %s", error)
        return None, False
    return (adapter if was_trained(adapter) else None), True


def _resumed_from(config: DictConfig) -> Path | None:
    """Return the checkpoint that verl is about to go on from; None where it begins anew."""
    trainer = config.trainer
    if trainer.resume_mode == "resume_path":
        return Path(trainer.resume_from_path).resolve()
    if trainer.resume_mode == "auto":
        latest = find_latest_ckpt_path(str(Path(trainer.default_local_dir).resolve()))
        return Path(latest) if latest else None
    return None


def _state_of(checkpoint: Path) -> RunState | None:
    try:
        return RunState.read(checkpoint)
    except StateError as error:
        logger.warning("a new series begins: %s", error)
        return None
