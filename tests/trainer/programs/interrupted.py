"""A run that Ctrl-C ends: `python interrupted.py OUT URL`, while its first checkpoint is on its way."""

import sys
from pathlib import Path
from typing import Any

from fixtures.grpo import tiny_trainer
from transformers import TrainerCallback

from nextrapolate import NExtClient
from nextrapolate_trainer.trl import NExtCallback


class CtrlC(TrainerCallback):
    """Interrupts the run after step 2, as a person does."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt


def main(out: Path, url: str) -> None:
    trainer = tiny_trainer(out, max_steps=6)
    NExtCallback(NExtClient(url, "nx_none_none"), collect_every=2, jump_at=100).attach(trainer)
    trainer.add_callback(CtrlC())
    trainer.train()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
