"""GRPO with TRL, and one line more.

Start `nextrapolate-server`, then run `python examples/trl_grpo.py`. The model is the small one of demo/, so
that a CPU will do; everything else is as in any GRPO run with LoRA.
"""

import argparse
import logging
import random
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]

from nextrapolate import NExtClient
from nextrapolate_trainer.trl import NExtCallback

MODEL = str(Path(__file__).parent.parent / "demo" / "base")


def sums(count: int, seed: int = 0) -> Dataset:
    """Return prompts like "37+85=", and their answers."""
    choose = random.Random(seed)
    pairs = [(choose.randint(10, 99), choose.randint(10, 99)) for _ in range(count)]
    return Dataset.from_list([{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a, b in pairs])


def exact(completions: list[str], answer: list[str], **_: Any) -> list[float | None]:
    """Reward 1 for the exact answer."""
    return [float(text == right) for text, right in zip(completions, answer, strict=True)]


def main() -> None:
    """Train, and jump inside the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--collect-every", type=int, default=10)
    parser.add_argument("--jump-at", type=int, default=150)
    parser.add_argument("--horizon-steps", type=int, default=50)
    parser.add_argument("--method", default="auto")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("nextrapolate").setLevel(logging.INFO)

    trainer = GRPOTrainer(
        model=MODEL,
        reward_funcs=exact,
        args=GRPOConfig(
            max_steps=options.steps,
            learning_rate=5e-5,
            lr_scheduler_type="constant",
            per_device_train_batch_size=128,
            max_completion_length=5,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=sums(4000),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    NExtCallback(
        NExtClient(),
        collect_every=options.collect_every,
        jump_at=options.jump_at,
        horizon_steps=options.horizon_steps,
        method=options.method,
    ).attach(trainer)
    trainer.train()


if __name__ == "__main__":
    main()
