"""TRL: a callback that collects a run's adapter, and swaps in the one that the service extrapolated.

Collected on step end, swapped in on step begin: in between the trainer saves, so that a checkpoint at the
step of a jump is still the run's own, and when a step begins no gradients are pending.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from peft import PeftModel
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from nextrapolate import NExtClient
from nextrapolate.methods import make_method
from nextrapolate.schemas import Gate, Method
from nextrapolate_trainer.adapter import Adapter, copied, fingerprint, was_trained
from nextrapolate_trainer.errors import StateError, UnsupportedRunError
from nextrapolate_trainer.fail_open import fail_open
from nextrapolate_trainer.guard import Score
from nextrapolate_trainer.jumper import Jumper, JumpRequest
from nextrapolate_trainer.peft_model import adapter_config, read_adapter
from nextrapolate_trainer.ranks import Ranks, group_timeout
from nextrapolate_trainer.schedule import Schedule
from nextrapolate_trainer.series import Run
from nextrapolate_trainer.settings import JumpSettings, OptimizerState
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.summary import JumpSummary
from nextrapolate_trainer.trl_evaluation import own_evaluation
from nextrapolate_trainer.trl_internals import Trainer, is_preempted, saves_when_preempted
from nextrapolate_trainer.trl_run import SwapRules, TrlRun, supported_model

logger = logging.getLogger("nextrapolate")

_DEFAULTS = JumpSettings()

SHARE_OF_GROUP_TIMEOUT = 0.8
"""The other processes wait for the first one in a broadcast, which ends the run if it takes too long."""


class NExtCallback(TrainerCallback):
    """Extrapolates a GRPO or RLOO run from inside: `NExtCallback(client, jump_at=150).attach(trainer)`.

    Nothing it does ends the run or, short of a jump, changes it: whatever fails is logged as an error by the
    logger "nextrapolate". For LoRA runs, in one process or in several by DDP, FSDP2 or DeepSpeed. A resumed
    run goes on with the series and the schedule where its checkpoint was.

    Args:
        client: the service.
        collect_every: training steps between checkpoints.
        jump_at: training steps after which the run jumps; None makes no jump but that of `finish`.
        jump_every: steps between further jumps; None jumps once.
        horizon_steps: training steps that a jump is to skip; None is 50, or what a `Method` has itself.
        alpha: factor on the update; None is the method's own.
        method: name of a method, or a `Method`, which the other settings given here change.
        alphas: several factors to try, each by a job of its own; the guard keeps the best, or the run's own
            adapter, which alpha 0 would be.
        others: further methods to try at each jump, each by a job of its own too; by name they get the same
            horizon.
        guard: judges the model before and after a jump, and the best stays: "evaluate" takes the mean reward
            of the trainer's own evaluation, on its eval_dataset (each of several counts once); a function is
            given the model, in evaluation mode, and returns a score, higher is better. Under FSDP2 and ZeRO-3
            one that raises in some processes alone ends the run.
        guard_tolerance: how far below the run's own score a jump may come out and stay.
        optimizer: "keep" keeps the optimizer's state of every module that came back in the run's own gauge,
            and clears it for the others; "reset" clears it for all that have LoRA factors.
        gate: thresholds below which a module keeps the run's own adapter; None is the service's default.
        name: name of the series; None is the trainer's run name.
        timeout: seconds that the run waits for the service at a jump before it goes on without; less where
            the process group of several processes would not wait that long.
        max_update_ratio: an update longer than this share of the drift since training began is refused.
        only_if_recommended: jump only where the report recommends it: the run's own past speaks for it.
        finish: a method, by name (over the same horizon) or a `Method`, of one more jump after the last step,
            which no report has to recommend: "wsm" leaves the model with the average of the run's last
            checkpoints. The trainer's last checkpoint is the run's own all the same.
        **parameters: further parameters of the method.

    Raises:
        ParameterError: the method or one of its parameters is not known, or out of range.
        ValueError: jumps do not fall on collected steps, or there are none; alphas or others without a guard;
            alphas with nothing but 0; an optimizer or a guard that is not known; a limit not above 0.
    """

    def __init__(
        self,
        client: NExtClient,
        *,
        collect_every: int = 10,
        jump_at: int | None = _DEFAULTS.jump_at,
        jump_every: int | None = _DEFAULTS.jump_every,
        horizon_steps: int | None = None,
        alpha: float | None = None,
        alphas: Sequence[float] | None = None,
        others: Sequence[str | Method] = (),
        guard: Literal["evaluate"] | Score | None = None,
        guard_tolerance: float = 0.0,
        method: str | Method = "auto",
        optimizer: OptimizerState = _DEFAULTS.optimizer,
        gate: Gate | None = None,
        name: str | None = None,
        timeout: float = _DEFAULTS.timeout,
        max_update_ratio: float = _DEFAULTS.max_update_ratio,
        only_if_recommended: bool = _DEFAULTS.only_if_recommended,
        finish: str | Method | None = None,
        **parameters: Any,
    ) -> None:
        self._settings = JumpSettings.checked(
            {
                "jump_at": jump_at,
                "jump_every": jump_every,
                "optimizer": optimizer,
                "gate": gate or _DEFAULTS.gate,
                "name": name,
                "timeout": timeout,
                "max_update_ratio": max_update_ratio,
                "only_if_recommended": only_if_recommended,
            }
        )
        if not (guard is None or guard == "evaluate" or callable(guard)):
            raise ValueError(
                f'guard is {guard!r}: it must be "evaluate", or a function that returns a model\'s score'
            )
        if (alphas is not None or others) and guard is None:
            raise ValueError("several alphas or methods need a guard to choose among them: give guard=")
        own = {"horizon_steps": horizon_steps, "alpha": alpha}
        given = {name: value for name, value in own.items() if value is not None}
        self.method = make_method(method, **given, **parameters)
        self.schedule = Schedule(collect_every, jump_at, jump_every, finishes=finish is not None)
        self.jumps: list[JumpSummary] = []
        methods = [*_at_alphas(self.method, alphas), *_beside(self.method, others)]
        self._request = JumpRequest(methods, only_if_recommended)
        self._finish = None if finish is None else JumpRequest(_beside(self.method, [finish]))
        self._client = client
        self._guard = guard
        self._rules = SwapRules(optimizer, None if guard == "evaluate" else guard, guard_tolerance)
        self._trainer: Trainer | None = None
        self._run: TrlRun | None = None
        self._is_noted = False
        self._jumped_at: int | None = None
        """The step that the run goes on from, where its checkpoint holds the jump from there."""

    def attach(self, trainer: Trainer) -> Self:
        """Take part in the trainer's runs; returns the callback, whose `jumps` grow as they are made.

        Attached again, it takes part once all the same.

        Raises:
            ValueError: it, or the trainer, is attached to another already; the guard is "evaluate", and the
                trainer has nothing to evaluate on.
        """
        callbacks = trainer.callback_handler.callbacks
        if any(isinstance(callback, NExtCallback) and callback is not self for callback in callbacks):
            raise ValueError(
                "the trainer has a NExtCallback already: trainer.remove_callback(NExtCallback) removes it"
            )
        if self._trainer not in (None, trainer):
            raise ValueError(
                "this callback is attached to another trainer already: make one for each trainer"
            )
        if self._guard == "evaluate":
            if trainer.eval_dataset is None:
                raise ValueError('guard="evaluate" needs held-out prompts: give the trainer an eval_dataset')
            self._rules = replace(self._rules, score=own_evaluation(trainer))
        self._trainer = trainer
        if self not in callbacks:
            trainer.add_callback(self)
        return self

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take part, unless the run is of a kind that cannot be served."""
        # A train() that died has not said so: what follows is no part of its run, whatever fails here.
        self._leave()
        self._is_noted, self._jumped_at = False, None
        with fail_open("nextrapolate takes no part in this run"):
            if self._trainer is None:
                raise UnsupportedRunError(
                    "add the callback with .attach(trainer): it needs the trainer itself"
                )
            trainer, ranks = self._trainer, Ranks(self._trainer.accelerator)
            step = state.global_step
            run = ranks.together(lambda: self._begun(trainer, ranks, args, state))
            if run.has_jumped_after(step):
                self._jumped_at = step
            elif self.schedule.collects_after(step):
                # A jump may be due from here, and the process that collected this adapter is gone.
                ranks.together(lambda: run.collect(step))
            self._run = run

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **event: Any
    ) -> None:
        """Jump where the schedule says so: after step `state.global_step`, before the next begins."""
        step = state.global_step
        self._note_preempted(args, state, control)
        if self._run is not None and self.schedule.jumps_after(step) and step != self._jumped_at:
            with fail_open(f"no jump after step {step}, training goes on from its own weights"):
                self._jump(
                    self._run,
                    self._request,
                    args,
                    state,
                    event["optimizer"],
                    is_stopping=lambda: control.should_training_stop or self._is_preempted(),
                )

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Complete the checkpoint that `enable_jit_checkpoint` has made before the step, maybe of a jump."""
        self._note_preempted(args, state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """See that the last jump was taken up, and collect the adapter where the schedule says so."""
        step = state.global_step
        if self._run is None:
            return
        with fail_open("the last jump is not confirmed"):
            self._run.prove_jump()
        if self.schedule.collects_after(step):
            with fail_open(f"the checkpoint of step {step} is not collected"):
                self._run.collect(step)
        self._note_preempted(args, state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Complete the checkpoint that `enable_jit_checkpoint` has made at the end of an epoch."""
        self._note_preempted(args, state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Put a file of our own beside the trainer's, so that the run can be resumed from this checkpoint."""
        step = state.global_step
        if self._run is not None:
            with fail_open(f"a run resumed from step {step} will not know its series"):
                self._run.save_state(step, _checkpoint(args, step))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **event: Any
    ) -> None:
        """Make the jump that the run is to end with, and let the last checkpoints reach the service."""
        if self._run is not None and self._finish is not None:
            if why := _ends_otherwise(args, state):
                logger.log(logging.WARNING if args.should_log else logging.DEBUG, "no last jump: %s", why)
            else:
                self._end(self._run, self._finish, args, state, event["optimizer"])
        self._leave()

    def _end(
        self,
        run: TrlRun,
        finish: JumpRequest,
        args: TrainingArguments,
        state: TrainerState,
        optimizer: Optimizer,
    ) -> None:
        step = state.global_step
        if not self.schedule.collects_after(step):
            with fail_open(f"the checkpoint of step {step} is not collected"):
                run.collect(step)
        with fail_open(f"no jump after step {step}, the last: the run ends with its own weights"):
            self._jump(run, finish, args, state, optimizer, is_stopping=self._is_preempted)
        with fail_open("the measurements of the last jump are not logged"):
            run.log_metrics()

    def _jump(
        self,
        run: TrlRun,
        request: JumpRequest,
        args: TrainingArguments,
        state: TrainerState,
        optimizer: Optimizer,
        *,
        is_stopping: Callable[[], bool],
    ) -> None:
        """Jump from where the run is, and tell of it."""
        jump = run.jump(state.global_step, request, optimizer, is_stopping)
        self.jumps.append(jump)
        logger.log(jump.log_level if args.should_log else logging.DEBUG, "%s", jump)

    def _is_preempted(self) -> bool:
        return self._trainer is not None and is_preempted(self._trainer)

    def _note_preempted(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Put our file into what `enable_jit_checkpoint` has just saved: it calls no `on_save`.

        Its callback is one of the trainer's own, and called first. That the run is to stop is all it leaves,
        and goes on to say in the events that follow, up to the end of the step: nothing is saved there.
        """
        if self._run is None or self._trainer is None or not control.should_training_stop or self._is_noted:
            return
        self._is_noted = True
        if saves_when_preempted(self._trainer):
            step = state.global_step
            with fail_open(f"a run resumed from step {step} will not know its series"):
                self._run.save_state(step, _checkpoint(args, step), if_saved=True)

    def _leave(self) -> None:
        """Take no more part in a run, if there is one."""
        run, self._run = self._run, None
        if run is not None:
            with fail_open("the last checkpoints may not have reached the service"):
                run.close()

    def _begun(self, trainer: Trainer, ranks: Ranks, args: TrainingArguments, state: TrainerState) -> TrlRun:
        """Return the run as it stands, at step 0 unless it is resumed."""
        model = supported_model(trainer)
        # Where the model is sharded, reading it takes all processes.
        live = read_adapter(model)
        adapter = copied(live)
        jumper = self._jumper(model, args, state, adapter) if ranks.leads else None
        if ranks.leads and any(tensor.itemsize < 4 for name, tensor in live.items() if ".lora_" in name):
            logger.warning(
                "the adapter is trained in 16 bits, as TRL does on a quantised base: training steps are "
                "small compared with its rounding, and so is what a jump can learn from them and change"
            )
        return TrlRun(trainer, model, ranks, jumper, self._rules)

    def _jumper(
        self, model: PeftModel, args: TrainingArguments, state: TrainerState, adapter: Adapter
    ) -> Jumper:
        """Return the way to the service, for the first process; `adapter` is what training goes on from."""
        config, step = adapter_config(model), state.global_step
        resumed = _resumed(args, step, adapter) if step else None
        has_jumped = resumed is not None and bool(resumed.jumps)
        has_jumped_here = resumed is not None and any(jump.step == step for jump in resumed.jumps)
        if told := self.schedule.never_comes_to(step, state.max_steps, has_jumped=has_jumped):
            logger.warning("%s", told)
        if told := self.schedule.collects_too_many(state.max_steps):
            logger.warning("%s", told)
        if self._finish is not None and args.load_best_model_at_end:
            logger.warning("load_best_model_at_end, not finish, chooses the weights that this run ends with")
        start = adapter if step == 0 and was_trained(adapter) else None
        name = self._settings.name or args.run_name or Path(args.output_dir or ".").resolve().name
        settings = self._settings
        if args.world_size > 1:
            timeout = min(settings.timeout, SHARE_OF_GROUP_TIMEOUT * group_timeout(args.ddp_timeout))
            settings = settings.model_copy(update={"timeout": timeout})
        return Jumper(
            self._client,
            Run(name, config["base_model_name_or_path"], config, start, from_start=step == 0),
            settings,
            resumed,
            self.schedule.next_jump(step + has_jumped_here, state.max_steps),
        )


def _ends_otherwise(args: TrainingArguments, state: TrainerState) -> str | None:
    """Return why a run that is over has not come to the end at which it was to make one more jump."""
    if state.global_step < state.max_steps:
        return f"the run was stopped after step {state.global_step}, before its last step, {state.max_steps}"
    if args.load_best_model_at_end and state.best_model_checkpoint is not None:
        return f"load_best_model_at_end has chosen {state.best_model_checkpoint} as the end of the run"
    return None


def _at_alphas(method: Method, alphas: Sequence[float] | None) -> list[Method]:
    """Return the method with each of the factors; with its own where none are given.

    Raises:
        ValueError: there is nothing but 0.
    """
    if alphas is None:
        return [method]
    # Without a jump alpha is 0, and that adapter is the run's own: it needs no job.
    tried = [factor for factor in alphas if factor]
    if not tried:
        raise ValueError(
            f"alphas is {alphas!r}, but 0 is the run's own adapter: give another factor to try, or leave "
            "alphas out"
        )
    return [make_method(method, alpha=factor) for factor in tried]


def _beside(method: Method, others: Sequence[str | Method]) -> list[Method]:
    """Return the other methods, those by name over the same horizon."""
    by_name = {"horizon_steps": method.horizon_steps}
    return [make_method(other, **(by_name if isinstance(other, str) else {})) for other in others]


def _checkpoint(args: TrainingArguments, step: int) -> Path:
    """Return the folder in which the trainer saves a step."""
    return Path(args.output_dir or ".") / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def _resumed(args: TrainingArguments, step: int, loaded: Adapter) -> RunState | None:
    """Return the state that the run goes on from; None where no checkpoint tells.

    The trainer keeps no note of the folder that it resumes from: it may be the one that the arguments name,
    or the step's own in the output folder. What it loaded tells which, or that it is neither.
    """
    named = args.resume_from_checkpoint
    folders = [Path(named)] if named and Path(named).is_dir() else []
    folders = [folder.absolute() for folder in (*folders, _checkpoint(args, step))]
    try:
        return RunState.find(dict.fromkeys(folders), step, fingerprint(loaded))
    except StateError as error:
        logger.warning(
            "a new series begins at step %d: %s. If the run resumes from another folder, name it in the "
            "trainer's arguments as well (resume_from_checkpoint); if it resumes from here, its series "
            "cannot be continued: it was saved without the plugin, or by a run that was killed as it saved",
            step,
            error,
        )
        return None
