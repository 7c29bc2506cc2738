"""The private names of TRL that a jump cannot do without; read from TRL 1.16, there since 1.10 or before.

Everything else goes through public interfaces. Where TRL renames one of these, `missing_names` says which,
the plugin declines the run instead of training on stale completions, and a test of ours fails.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.trainer_jit_checkpoint import CheckpointManager
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

Trainer = GRPOTrainer | RLOOTrainer
"""The trainers that the plugin serves: both keep completions and metrics in the same way."""

_BUFFER = "_buffered_inputs"
_METRICS = "_metrics"
_VLLM_STEP = "_last_loaded_step"
_COMPLETIONS = "_logs"
_PENDING = ("_pending_metrics", "_pending_extra_logs")  # what a reward function has logged, not yet averaged


def missing_names(trainer: Trainer) -> list[str]:
    """Return the names that this version of TRL no longer has."""
    names = [_BUFFER, _METRICS, _COMPLETIONS, *([_VLLM_STEP] if getattr(trainer, "use_vllm", False) else [])]
    return [name for name in names if not hasattr(trainer, name)]


def keeps_other_weights(trainer: Trainer) -> bool:
    """Tell whether the optimizer changes the weights for evaluation, as schedule-free ones do."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # within Accelerate's
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


def saves_when_preempted(trainer: Trainer) -> bool:
    """Tell whether a SIGTERM has the trainer save at the next occasion, and stop: `enable_jit_checkpoint`."""
    return bool(jit_managers(trainer))


def is_preempted(trainer: Trainer) -> bool:
    """Tell whether the trainer means to do so, and has not done it yet."""
    return any(manager.is_checkpoint_requested for manager in jit_managers(trainer))


def forget_completions(trainer: Trainer) -> None:
    """Drop completions sampled before a swap: TRL reuses them over several steps."""
    setattr(trainer, _BUFFER, None)


def reload_weights(trainer: Trainer) -> None:
    """Have vLLM load the weights before it generates again: TRL does so only when the step has changed."""
    if trainer.use_vllm:
        setattr(trainer, _VLLM_STEP, -1)


@contextmanager
def completions_unlogged(trainer: Trainer) -> Iterator[None]:
    """Show and keep nothing of completions sampled within: the records of this step are the training's.

    What is sampled may fail half-way, and would be averaged into the next entry of the log.
    """
    log, kept = trainer.log_completions, copy.deepcopy(getattr(trainer, _COMPLETIONS))
    trainer.log_completions = False
    try:
        yield
    finally:
        trainer.log_completions = log
        setattr(trainer, _COMPLETIONS, kept)
        getattr(trainer, _METRICS)["eval"].clear()
        for name in _PENDING:
            getattr(trainer, name, {}).clear()


def log_metrics(trainer: Trainer) -> None:
    """Log what was added after the trainer's last entry; nothing, if nothing was."""
    if getattr(trainer, _METRICS)["train"]:
        trainer.log({})


def add_metrics(trainer: Trainer, metrics: dict[str, float]) -> None:
    """Add metrics to the trainer's next log entry, beside its own."""
    for name, value in metrics.items():
        getattr(trainer, _METRICS)["train"][name].append(value)


def jit_managers(trainer: Trainer) -> list[CheckpointManager]:
    """Return what transformers minds the signal with; nothing, unless `enable_jit_checkpoint` is set."""
    managers = (getattr(callback, "jit_manager", None) for callback in trainer.callback_handler.callbacks)
    return [manager for manager in managers if manager is not None]
