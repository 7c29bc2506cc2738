"""One run of TRL that takes part: collects its adapter, jumps, and sees that the jump was taken up."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import DistributedType
from peft import PeftModel
from torch.optim import Optimizer

from nextrapolate_trainer import trl_internals
from nextrapolate_trainer.adapter import Adapter, copied, distance, fingerprint
from nextrapolate_trainer.errors import (
    JumpRefusedError,
    RankError,
    RunStopsError,
    SwapError,
    UnsupportedRunError,
)
from nextrapolate_trainer.guard import Score, Trial, measure
from nextrapolate_trainer.jumper import Jump, Jumper, JumpRequest
from nextrapolate_trainer.peft_model import clear_moments, read_adapter, restoring, write_adapter
from nextrapolate_trainer.ranks import Ranks
from nextrapolate_trainer.settings import OptimizerState
from nextrapolate_trainer.summary import JumpSummary

_SIGNALS_SECONDS = 5.0
"""Within which a process hears that the run is to stop: transformers acts 3 s after its signal."""

SERVED = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.FSDP,
    DistributedType.DEEPSPEED,
)


@dataclass(frozen=True)
class SwapRules:
    """Which adapter on offer is swapped in, and what it leaves of the optimizer's state."""

    optimizer: OptimizerState
    score: Score | None
    """The guard's; None takes what is offered."""
    tolerance: float


def supported_model(trainer: trl_internals.Trainer) -> PeftModel:
    """Return the trainer's model, where this kind of run can be served.

    Raises:
        UnsupportedRunError: it cannot; says why.
    """
    model = trainer.model
    if (kind := trainer.accelerator.distributed_type) not in SERVED:
        raise UnsupportedRunError(
            f"runs distributed by {kind.value} are not supported: use DDP, FSDP2 or DeepSpeed"
        )
    if kind is DistributedType.FSDP and not trainer.accelerator.is_fsdp2:
        raise UnsupportedRunError('FSDP1 is not supported: use FSDP2, fsdp_config={"version": 2}')
    if not isinstance(model, PeftModel):
        raise UnsupportedRunError(
            "the model has no LoRA adapter: give the trainer a peft_config=LoraConfig(...)"
        )
    if trl_internals.keeps_other_weights(trainer):
        raise UnsupportedRunError(
            "a schedule-free optimizer trains weights of its own, which a swap of the adapter does not "
            "reach: use another optimizer"
        )
    if any(".lora_embedding_" in name for name, _ in model.named_parameters()):
        raise UnsupportedRunError(
            "LoRA on an embedding cannot be extrapolated: name only linear layers in target_modules"
        )
    if len(model.active_adapters) != 1:
        raise UnsupportedRunError(f"exactly one adapter must be active, not {model.active_adapters}")
    if not isinstance(trainer, trl_internals.Trainer):
        raise UnsupportedRunError(
            f"{type(trainer).__name__} is neither GRPOTrainer nor RLOOTrainer, nor a subclass of one: "
            "`nextrapolate watch` works with any other trainer"
        )
    if missing := trl_internals.missing_names(trainer):
        raise UnsupportedRunError(
            f"{type(trainer).__name__} has no {', '.join(missing)} in this version of TRL, which the "
            "plugin does not support: use `nextrapolate watch`"
        )
    return model


class TrlRun:
    """The trainer on one side, the jumper on the other; in a run of several processes, each has one of these.

    Args:
        trainer: the trainer.
        model: its model.
        ranks: the run's processes.
        jumper: the service; None in all processes but the first.
        rules: what becomes of the adapters on offer.
    """

    def __init__(
        self,
        trainer: trl_internals.Trainer,
        model: PeftModel,
        ranks: Ranks,
        jumper: Jumper | None,
        rules: SwapRules,
    ) -> None:
        self._trainer = trainer
        self._model = model
        self._ranks = ranks
        self._jumper = jumper
        self._rules = rules
        self._unproven: tuple[Adapter, Jump] | None = None

    def collect(self, step: int) -> None:
        """Copy the adapter as it is after `step`; it is posted in the background."""
        started = time.monotonic()
        adapter = read_adapter(self._model)
        if self._jumper is None:
            return
        self._jumper.collect(step, adapter)
        trl_internals.add_metrics(self._trainer, {"next/collect_seconds": time.monotonic() - started})

    def jump(
        self, step: int, request: JumpRequest, optimizer: Optimizer, is_stopping: Callable[[], bool]
    ) -> JumpSummary:
        """Swap in an adapter extrapolated from `step`, the last that was collected.

        Whether the run is to stop while it waits, the first process tells for all.

        Raises:
            JumpRefusedError: the guard found the run better off without; it has its own adapter.
            TrainerPluginError, NextrapolateError: nothing has happened to the run.
        """
        # Every process has it: only what is on offer has to be sent.
        own = self._ranks.together(lambda: copied(read_adapter(self._model)))
        jumps = self._ranks.share(lambda: self._offered(step, request, is_stopping))
        if isinstance(jumps, RunStopsError):
            _wait_for(is_stopping)
            raise jumps if self._ranks.leads else RankError(str(jumps), reported=True)
        offered = time.monotonic()
        try:
            with restoring(self._model, own):
                jump, trial = self._chosen(jumps)
                reset = jump.modules_to_reset(self._rules.optimizer)
                self._ranks.together(lambda: clear_moments(self._model, optimizer, reset))
        finally:
            # A guard that evaluates has vLLM load what is tried out, for this very step.
            trl_internals.reload_weights(self._trainer)
        self._unproven = own, jump
        trl_internals.forget_completions(self._trainer)
        swap_seconds = time.monotonic() - offered - (trial.seconds if trial else 0.0)
        summary = JumpSummary.of(jump, trial, swap_seconds=swap_seconds, reset_modules=len(reset))
        trl_internals.add_metrics(self._trainer, summary.metrics())
        return summary

    def prove_jump(self) -> None:
        """After the first step from a new adapter, see that it was made from there; note it in the series.

        Mixed-precision optimizers keep a copy of the weights and may write it back over a swap. A jump that
        is shorter than the step does not show that: which end is nearer, the direction of the step decides.

        Raises:
            SwapError: the adapter is nearer to the run's old one than to the one that was swapped in, and
                than these two are to each other.
        """
        if self._unproven is None:
            return
        own, jump = self._unproven
        self._unproven = None
        now = copied(read_adapter(self._model))
        if distance(now, own) < min(distance(now, jump.after), distance(own, jump.after)):
            raise SwapError("the optimizer's step started from the old weights: it keeps a copy of them")
        if self._jumper is not None:
            self._jumper.record(jump)

    def log_metrics(self) -> None:
        """Log what a jump after the last step measured: the trainer has logged all that it will."""
        trl_internals.log_metrics(self._trainer)

    def save_state(self, step: int, checkpoint: Path, *, if_saved: bool = False) -> None:
        """Write into a checkpoint's folder what the run has to know to go on from there.

        Args:
            step: training steps that were made.
            checkpoint: the folder.
            if_saved: write nothing where there is no such folder.
        """
        adapter = read_adapter(self._model)
        if self._jumper is not None and (checkpoint.is_dir() or not if_saved):
            jump = self._unproven[1] if self._unproven else None
            self._jumper.state(step, fingerprint(copied(adapter)), jump).write(checkpoint)

    def has_jumped_after(self, step: int) -> bool:
        """Tell whether the weights that the run goes on from after `step` are those of a jump from there."""
        return self._ranks.share(lambda: self._leading().has_jumped_after(step))

    def close(self) -> None:
        """Let the last checkpoints reach the service."""
        if self._jumper is not None:
            self._jumper.close()

    def _offered(
        self, step: int, request: JumpRequest, is_stopping: Callable[[], bool]
    ) -> list[Jump] | RunStopsError:
        try:
            return self._leading().jumps_from(step, request, is_stopping)
        except RunStopsError as error:  # which all processes have to hear of
            return error

    def _leading(self) -> Jumper:
        assert self._jumper is not None  # noqa: S101 (asked in the first process only)
        return self._jumper

    def _chosen(self, jumps: Sequence[Jump]) -> tuple[Jump, Trial | None]:
        """Write the adapter to go on with into the model: the one on offer, or the guard's choice."""
        if self._rules.score is None:
            [jump] = jumps
            self._write(jump)
            return jump, None
        trial = self._try_out(jumps, self._rules.score)
        # Only the first process' scores count: elsewhere they may differ in the last digits.
        best = self._ranks.share(lambda: trial.best(self._rules.tolerance))
        if best is None:
            trl_internals.add_metrics(self._trainer, trial.metrics(kept=False))
            scores = ", ".join(
                f"{score:.4g} by {jump.method.name} at alpha {jump.method.alpha:g}"
                for jump, score in zip(jumps, trial.offered, strict=True)
            )
            raise JumpRefusedError(f"the guard scores the run's own adapter {trial.own:.4g}, and {scores}")
        self._write(jumps[best])
        return jumps[best], trial

    def _try_out(self, jumps: Sequence[Jump], score: Score) -> Trial:
        started = time.monotonic()
        device = self._trainer.accelerator.device
        own = self._ranks.together(lambda: measure(self._model, score, device))
        offered: list[float] = []
        for jump in jumps:
            self._write(jump)
            offered.append(self._ranks.together(lambda: measure(self._model, score, device)))
        return Trial(own, tuple(offered), time.monotonic() - started)

    def _write(self, jump: Jump) -> None:
        self._ranks.together(lambda: write_adapter(self._model, jump.after))
        trl_internals.reload_weights(self._trainer)


def _wait_for(is_stopping: Callable[[], bool]) -> None:
    """Have this process hear that the run is to stop, as another has.

    Each has a signal of its own, which waits while the process waits for another; then it saves at what it
    comes to next. Where that were a later step than elsewhere, it would wait there for those that have ended.
    """
    ends = time.monotonic() + _SIGNALS_SECONDS
    while not is_stopping() and time.monotonic() < ends:
        time.sleep(0.05)
