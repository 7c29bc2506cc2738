"""TRL's trainers for a task, as the demo and the benchmarks use it."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import Qwen2ForCausalLM
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from demo.language import make_tokenizer
from demo.task import Task

SETTINGS: dict[str, Any] = {
    "learning_rate": 5e-5,
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": 128,
    "per_device_eval_batch_size": 512,
    "num_generations": 8,
    "temperature": 1.0,
    "top_k": 0,
    "beta": 0.0,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": "none",
    "logging_steps": 10,
    "disable_tqdm": True,
}
"""16 questions with 8 answers a step. Callers change them, by the names of GRPOConfig and RLOOConfig."""
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GUARD_QUESTIONS = 128
"""Of those for training: a guard has each answered 8 times. Accuracy is measured on others."""


def grpo_trainer(
    task: Task, base: Path, out: Path, *, all_weights: bool = False, **settings: Any
) -> GRPOTrainer:
    """Return a trainer that starts from the model in `base`, its `SETTINGS` changed by `settings`.

    It trains a LoRA adapter, or all weights.
    """
    lora = None if all_weights else lora_config()
    args = GRPOConfig(**_settings(task, out, settings))
    return GRPOTrainer(args=args, peft_config=lora, **_parts(task, base))


def rloo_trainer(task: Task, base: Path, out: Path, **settings: Any) -> RLOOTrainer:
    """Return the same for RLOO."""
    args = RLOOConfig(**_settings(task, out, settings))
    return RLOOTrainer(args=args, peft_config=lora_config(), **_parts(task, base))


def lora_config() -> LoraConfig:
    """Return what is trained of the model: rank 16 on all its linear layers."""
    return LoraConfig(r=16, lora_alpha=32, target_modules=LORA_TARGETS, task_type="CAUSAL_LM")


def _settings(task: Task, out: Path, changed: dict[str, Any]) -> dict[str, Any]:
    own = {"output_dir": str(out), "max_completion_length": task.max_answer_tokens}
    return SETTINGS | own | changed


def _parts(task: Task, base: Path) -> dict[str, Any]:
    training, _ = task.split()
    return {
        "model": Qwen2ForCausalLM.from_pretrained(base),
        "reward_funcs": task.exact_match,
        "train_dataset": Dataset.from_dict({"prompt": training}),
        "eval_dataset": Dataset.from_dict({"prompt": training[:GUARD_QUESTIONS]}),
        "processing_class": make_tokenizer(),
    }
