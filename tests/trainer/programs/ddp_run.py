"""A GRPO run of several processes: `accelerate launch ... ddp_run.py OUT GUARD TIMEOUT`.

Each process leaves in OUT/rank-<n>.safetensors the adapter as each step began and ended, and in
OUT/rank-<n>.json the jumps that it made.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from fixtures.grpo import tiny_trainer
from safetensors.torch import save_file
from transformers import TrainerCallback

from nextrapolate import Gate, NExtClient
from nextrapolate_trainer.adapter import copied
from nextrapolate_trainer.peft_model import read_adapter
from nextrapolate_trainer.trl import NExtCallback


class Spy(TrainerCallback):
    """Keeps the adapter around the jump."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        self._see(f"begun after {state.global_step}", event)

    def on_step_end(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        self._see(f"ended {state.global_step}", event)

    def _see(self, moment: str, event: dict[str, Any]) -> None:
        self.seen |= {f"{moment}: {name}": t for name, t in copied(read_adapter(event["model"])).items()}


def main() -> None:
    out = Path(sys.argv[1])
    logging.basicConfig(level=logging.WARNING)
    trainer = tiny_trainer(
        out / "run", max_steps=6, save_steps=5, per_device_train_batch_size=8, ddp_backend="gloo"
    )
    spy = Spy()
    # Scores differ between the processes: the first one's count.
    guards = {"none": None, "accepts": lambda model: trainer.accelerator.process_index and -len(spy.seen)}
    plugin = NExtCallback(
        NExtClient(),
        collect_every=2,
        jump_at=4,
        horizon_steps=2,
        method="weight-extrapolation",
        gate=Gate(min_backtest_cosine=-1),
        guard=guards[sys.argv[2]],
        timeout=float(sys.argv[3]),
    ).attach(trainer)
    trainer.add_callback(spy)
    trainer.train()
    rank = trainer.accelerator.process_index
    save_file(spy.seen, out / f"rank-{rank}.safetensors")
    summary = {"jumps": [jump.job for jump in plugin.jumps], "processes": trainer.accelerator.num_processes}
    (out / f"rank-{rank}.json").write_text(json.dumps(summary))


if __name__ == "__main__":
    main()
