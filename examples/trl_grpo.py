"""GRPO with TRL, and one line more.

Start `nextrapolate-server`, then run `python examples/trl_grpo.py`, or `accelerate launch` it. The model is
the small one of demo/ and the data are sums, so that a CPU will do: --model and --dataset take others.
"""

import argparse
import logging
import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]

from nextrapolate import NExtClient
from nextrapolate_trainer.trl import NExtCallback

MODEL = str(Path(__file__).parent.parent / "demo" / "base")


def sums(count: int = 4000, seed: int = 0) -> Dataset:
    """Return prompts like "37+85=", and their answers."""
    choose = random.Random(seed)
    pairs = [(choose.randint(10, 99), choose.randint(10, 99)) for _ in range(count)]
    return Dataset.from_list([{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a, b in pairs])


def exact(completions: list[str], answer: list[str], **_: Any) -> list[float | None]:
    """Reward 1 for the exact answer."""
    return [float(text == right) for text, right in zip(completions, answer, strict=True)]


def arguments() -> argparse.ArgumentParser:
    """Return what examples with TRL ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=MODEL, help="name on the Hub, or a folder")
    parser.add_argument("--dataset", help="name on the Hub, or a folder; columns: prompt, answer")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--completion-tokens", type=int, default=5)
    parser.add_argument("--out", default="run")
    return parser


def main() -> None:
    """Train, and jump inside the run, again and again."""
    parser = arguments()
    parser.add_argument("--jump-at", type=int, default=40)
    parser.add_argument("--jump-every", type=int, default=20)
    parser.add_argument("--horizon-steps", type=int, default=100)
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("nextrapolate").setLevel(logging.INFO)

    trainer = GRPOTrainer(
        model=options.model,
        reward_funcs=exact,
        args=GRPOConfig(
            output_dir=options.out,
            max_steps=options.steps,
            learning_rate=5e-5,
            lr_scheduler_type="constant",
            per_device_train_batch_size=128,
            max_completion_length=options.completion_tokens,
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=load_dataset(options.dataset, split="train") if options.dataset else sums(),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    NExtCallback(
        NExtClient(),
        jump_at=options.jump_at,
        jump_every=options.jump_every,
        horizon_steps=options.horizon_steps,
    ).attach(trainer)
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
