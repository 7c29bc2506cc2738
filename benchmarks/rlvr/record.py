"""What a run leaves in its folder: run.json, and a checkpoint every few steps.

run.json          how the run was made, its held-out accuracy along the way, and what its jumps did
checkpoint-N/     the adapter after N steps; the newest one also holds what going on from it needs
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from demo.evaluate import Accuracy, evaluate
from demo.language import make_tokenizer
from demo.task import Task
from pydantic import TypeAdapter
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.written import day_and_machine
from nextrapolate_trainer.trl import NExtCallback

RECORD = "run.json"
ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
STATE = "trainer_state.json"
"""Written last: a checkpoint that has it is complete."""


class OtherRunError(Exception):
    """The folder holds a run made otherwise."""


@dataclass(frozen=True)
class Settings:
    """How a run is made."""

    task: str
    trainer: str
    learning_rate: float
    seed: int
    steps: int
    save_every: int
    measure_every: int = 10
    options: dict[str, Any] = field(default_factory=dict)
    """Further settings of the trainer, by TRL's names."""
    jumps: dict[str, Any] | None = None
    """Arguments of `NExtCallback`; None trains without it."""
    branches_at: int = 150
    """Other runs may start from this step: its checkpoint keeps what going on from it needs."""
    start: str | None = None
    """Name of the run that this one shares its first `branches_at` steps with."""

    def measures_after(self, step: int) -> bool:
        """Tell whether the model is measured after that step."""
        return step % self.measure_every == 0 or step in (self.branches_at, self.steps)


@dataclass(frozen=True)
class Row:
    """A measurement."""

    step: int
    seconds: float
    """Of the processor, for training so far: not what it waited for, nor evaluations."""
    accuracy: Accuracy


@dataclass(frozen=True)
class JumpRow:
    """A jump that was due, and the accuracy after it."""

    step: int
    seconds: float
    """That the run waited for it; 0 where none was made."""
    accuracy: Accuracy
    alpha: float | None
    """None where none was made: the guard found the run better off without, or the service failed."""
    update_ratio: float | None
    """Norm of the update, as a share of the drift since the base."""
    backtest_cosine: float | None


@dataclass
class Record:
    """The content of run.json."""

    settings: Settings
    rows: list[Row] = field(default_factory=list)
    jumps: list[JumpRow] = field(default_factory=list)
    seconds: float = 0.0
    """Of training until the newest checkpoint."""
    made: str = ""
    """The day, the machine and its versions; of runs before 2026-11-27 it was not noted."""

    @classmethod
    def read(cls, file: Path) -> "Record":
        """Read a record.

        Raises:
            FileNotFoundError: there is none.
        """
        return TypeAdapter(cls).validate_json(file.read_bytes())

    @classmethod
    def resume(cls, run: Path, settings: Settings) -> "Record":
        """Read the record of a run to go on with, or begin one.

        Raises:
            OtherRunError: the folder holds a run with other settings.
        """
        if not (run / RECORD).exists():
            return cls(settings, made=day_and_machine())
        record = cls.read(run / RECORD)
        if record.settings != settings:
            raise OtherRunError(f"{run} holds another run, {record.settings}: give another folder")
        return record

    def write(self, run: Path) -> None:
        """Write it into a run's folder, whole or not at all."""
        unfinished = run / f"{RECORD}.unfinished"
        unfinished.write_text(json.dumps(asdict(self)) + "\n")
        unfinished.rename(run / RECORD)


def newest_checkpoint(run: Path) -> Path | None:
    """Return the checkpoint that the run can go on from, None where there is none."""
    complete = [state.parent for state in run.glob(f"checkpoint-*/{STATE}")]
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return N of checkpoint-N."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


class Recorder(TrainerCallback):
    """Measures the model along the way, and keeps of the older checkpoints the adapter alone."""

    def __init__(
        self,
        record: Record,
        run: Path,
        model: nn.Module,
        task: Task,
        questions: Sequence[str],
        on_step: Callable[[int, Accuracy], None],
        plugin: NExtCallback | None = None,
    ) -> None:
        self._record = record
        self._run = run
        self._model = model
        self._task = task
        self._questions = questions
        self._on_step = on_step
        self._plugin = plugin
        self._tokenizer = make_tokenizer()
        self._started = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the base, or take up the record where the checkpoint was."""
        rows = [row for row in self._record.rows if row.step <= state.global_step]
        self._record.rows = rows
        self._record.jumps = [jump for jump in self._record.jumps if jump.step < state.global_step]
        self._started = time.process_time() - self._record.seconds
        if not rows:
            self._measure(0)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure what a jump has made of the model: the plugin, added before this, has just made it."""
        step = state.global_step
        if self._plugin is None or not self._plugin.schedule.jumps_after(step):
            return
        made = self._plugin.jumps[-1:] if [jump.step for jump in self._plugin.jumps[-1:]] == [step] else []
        accuracy = self._evaluate()
        self._record.jumps += [
            JumpRow(step, jump.seconds, accuracy, jump.alpha, jump.update_ratio, jump.backtest_cosine)
            for jump in made
        ] or [JumpRow(step, 0.0, accuracy, None, None, None)]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure, before the trainer saves."""
        if self._record.settings.measures_after(state.global_step):
            self._measure(state.global_step)
        self._on_step(state.global_step, self._record.rows[-1].accuracy)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note how long it took; reduce the checkpoints before this one to their adapters."""
        self._record.seconds = time.process_time() - self._started
        self._record.write(self._run)
        for path in self._run.glob("checkpoint-*/*"):
            step = step_of(path.parent)
            older = step < state.global_step and step != self._record.settings.branches_at
            if older and path.name not in ADAPTER:
                path.unlink()

    def _measure(self, step: int) -> None:
        seconds = time.process_time() - self._started
        self._record.rows.append(Row(step, seconds, self._evaluate()))
        self._record.write(self._run)

    def _evaluate(self) -> Accuracy:
        begun = time.process_time()
        grades = evaluate(self._model, self._tokenizer, self._task, self._questions)
        self._started += time.process_time() - begun
        return grades.accuracy
