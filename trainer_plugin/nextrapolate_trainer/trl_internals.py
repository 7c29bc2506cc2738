"""The private names of TRL that a jump cannot do without; read from TRL 1.16, there since 1.10 or before.

Everything else goes through public interfaces. Where TRL renames one of these, `missing_names` says which,
the plugin declines the run instead of training on stale completions, and a test of ours fails.
"""

from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

Trainer = GRPOTrainer | RLOOTrainer
"""The trainers that the plugin serves: both keep completions and metrics in the same way."""

_BUFFER = "_buffered_inputs"
_METRICS = "_metrics"
_VLLM_STEP = "_last_loaded_step"


def missing_names(trainer: Trainer) -> list[str]:
    """Return the names that this version of TRL no longer has."""
    names = [_BUFFER, _METRICS, *([_VLLM_STEP] if trainer.use_vllm else [])]
    return [name for name in names if not hasattr(trainer, name)]


def forget_old_policy(trainer: Trainer) -> None:
    """Drop completions sampled before the swap, and have vLLM load the new weights.

    TRL reuses completions over several steps, and it loads weights into vLLM only when the step has changed.
    """
    setattr(trainer, _BUFFER, None)
    if trainer.use_vllm:
        setattr(trainer, _VLLM_STEP, -1)


def add_metrics(trainer: Trainer, metrics: dict[str, float]) -> None:
    """Add metrics to the trainer's next log entry, beside its own."""
    for name, value in metrics.items():
        getattr(trainer, _METRICS)["train"][name].append(value)
