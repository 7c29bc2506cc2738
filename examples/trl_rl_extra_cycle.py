"""RL-Extra's cycle with TRL: train for some steps, jump ahead by some, and so on; here with RLOO and a guard.

Start `nextrapolate-server`, then run `python examples/trl_rl_extra_cycle.py`. Model, data and reward are
those of trl_grpo.py. Before a jump is kept, the guard compares rewards on prompts that are not trained on.
"""

import logging

import torch
from datasets import load_dataset
from peft import LoraConfig
from trl import RLOOConfig, RLOOTrainer  # type: ignore[attr-defined]
from trl_grpo import arguments, exact, sums

from nextrapolate import NExtClient
from nextrapolate_trainer.schedule import rl_extra
from nextrapolate_trainer.trl import NExtCallback


def main() -> None:
    """Train in cycles."""
    parser = arguments()
    parser.add_argument("--train-steps", type=int, default=20)
    parser.add_argument("--jump-steps", type=int, default=60)
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("nextrapolate").setLevel(logging.INFO)

    data = load_dataset(options.dataset, split="train") if options.dataset else sums()
    held_out = data.train_test_split(test_size=128, seed=0)
    trainer = RLOOTrainer(
        model=options.model,
        reward_funcs=exact,
        args=RLOOConfig(
            output_dir=options.out,
            max_steps=options.steps,
            learning_rate=5e-5,
            lr_scheduler_type="constant",
            per_device_train_batch_size=128,
            per_device_eval_batch_size=256,
            num_generations=8,
            max_completion_length=options.completion_tokens,
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=held_out["train"],
        eval_dataset=held_out["test"],
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    cycle = rl_extra(options.train_steps, options.jump_steps)
    NExtCallback(NExtClient(), **cycle, guard="evaluate", guard_tolerance=0.02).attach(trainer)
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
