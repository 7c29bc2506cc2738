"""Looks at a run from inside: how far it is, and how good its model is where the table wants a row."""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any, TextIO, cast

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.grpo_trainer import GRPOTrainer

from demo.evaluate import Accuracy, evaluate
from demo.language import make_tokenizer
from demo.plans import Plan
from demo.task import ADDITION
from nextrapolate_trainer.trl import NExtCallback


@dataclass(frozen=True)
class Measurement:
    """A row of the table."""

    step: int
    """Steps of GRPO paid so far."""
    event: str
    """start, jump, no jump, passing or end."""
    seconds: float
    """Of training so far, pauses of jumps included, evaluations not."""
    accuracy: Accuracy
    before: Accuracy | None = None
    """Before the jump, where this is one."""
    pause: float | None = None
    """Seconds that the run waited for the jump."""


class Watch(TrainerCallback):
    """Writes events, as JSON lines; added after the plugin, so that it sees a jump made."""

    def __init__(
        self, trainer: GRPOTrainer, plan: Plan, plugin: NExtCallback | None, held_out: int, out: TextIO
    ) -> None:
        self._model = cast(nn.Module, trainer.model)
        self._tokenizer = make_tokenizer()
        self._plan = plan
        self._plugin = plugin
        _, self._questions = ADDITION.split(held_out)
        self._out = out
        self._before: Accuracy | None = None
        self._started = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the base."""
        self._started = time.monotonic()
        self._measure(0, "start")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure what a jump has made of the model."""
        if self._plugin is None or self._before is None:
            return
        made = [jump for jump in self._plugin.jumps if jump.step == state.global_step]
        self._measure(
            state.global_step,
            "jump" if made else "no jump",
            before=self._before,
            pause=made[0].seconds if made else None,
        )
        self._before = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Say that the step is done; measure the model before a jump, in passing and at the end."""
        step = state.global_step
        self._say({"step": step})
        if step == self._plan.steps:
            self._measure(step, "end")
        elif step in self._plan.measured_at:
            self._measure(step, "passing")
        elif self._plugin is not None and self._plugin.schedule.jumps_after(step):
            self._before = self._evaluate()
            self._say({"jumping": step})

    def _evaluate(self) -> Accuracy:
        begun = time.monotonic()
        accuracy = evaluate(self._model, self._tokenizer, ADDITION, self._questions).accuracy
        self._started += time.monotonic() - begun
        return accuracy

    def _measure(self, step: int, event: str, **jump: Any) -> None:
        accuracy = self._evaluate()
        seconds = time.monotonic() - self._started
        self._say({"measured": asdict(Measurement(step, event, seconds, accuracy, **jump))})

    def _say(self, line: dict[str, Any]) -> None:
        print(json.dumps(line), file=self._out, flush=True)
