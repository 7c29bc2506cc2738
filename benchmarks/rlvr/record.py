"""What a run leaves in its folder: run.json, and a checkpoint every few steps.

run.json          how the run was made, and its held-out accuracy at every checkpoint
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
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

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


@dataclass(frozen=True)
class Row:
    """A measurement."""

    step: int
    seconds: float
    """Of training so far, evaluations not counted."""
    accuracy: Accuracy


@dataclass
class Record:
    """The content of run.json."""

    settings: Settings
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def read(cls, run: Path) -> "Record":
        """Read the record in a run's folder.

        Raises:
            FileNotFoundError: there is none.
        """
        content = json.loads((run / "run.json").read_text())
        rows = [Row(row["step"], row["seconds"], Accuracy(**row["accuracy"])) for row in content["rows"]]
        return cls(Settings(**content["settings"]), rows)

    @classmethod
    def resume(cls, run: Path, settings: Settings) -> "Record":
        """Read the record of a run to go on with, or begin one.

        Raises:
            OtherRunError: the folder holds a run with other settings.
        """
        if not (run / "run.json").exists():
            return cls(settings)
        record = cls.read(run)
        if record.settings != settings:
            raise OtherRunError(f"{run} holds another run, {record.settings}: give another folder")
        return record

    def write(self, run: Path) -> None:
        """Write run.json whole, or not at all."""
        unfinished = run / "run.json.unfinished"
        unfinished.write_text(json.dumps(asdict(self), indent=1))
        unfinished.rename(run / "run.json")


def newest_checkpoint(run: Path) -> Path | None:
    """Return the checkpoint that the run can go on from, None where there is none."""
    complete = [state.parent for state in run.glob(f"checkpoint-*/{STATE}")]
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return N of checkpoint-N."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


class Recorder(TrainerCallback):
    """Measures the model at every checkpoint, and keeps of the older ones the adapter alone."""

    def __init__(
        self,
        record: Record,
        run: Path,
        model: nn.Module,
        task: Task,
        questions: Sequence[str],
        on_step: Callable[[int, Accuracy], None],
    ) -> None:
        self._record = record
        self._run = run
        self._model = model
        self._task = task
        self._questions = questions
        self._on_step = on_step
        self._tokenizer = make_tokenizer()
        self._started = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the base, or take up the record where the checkpoint was."""
        rows = [row for row in self._record.rows if row.step <= state.global_step]
        self._record.rows = rows
        self._started = time.monotonic() - (rows[-1].seconds if rows else 0.0)
        if not rows:
            self._measure(0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure, before the trainer saves."""
        if state.global_step % self._record.settings.save_every == 0:
            self._measure(state.global_step)
        self._on_step(state.global_step, self._record.rows[-1].accuracy)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Reduce the checkpoints before this one to their adapters."""
        for path in self._run.glob("checkpoint-*/*"):
            if step_of(path.parent) < state.global_step and path.name not in ADAPTER:
                path.unlink()

    def _measure(self, step: int) -> None:
        begun = time.monotonic()
        grades = evaluate(self._model, self._tokenizer, self._task, self._questions)
        self._record.rows.append(Row(step, begun - self._started, grades.accuracy))
        self._record.write(self._run)
        self._started += time.monotonic() - begun
