"""What a jump is worth: the accuracy after it, beside the checkpoints it lies between.

    python -m benchmarks.rlvr.jumps RUN... [--at 150] [--horizons 50 100] [--methods METHOD...]

A METHOD is a name and, after commas, parameters of it: `relex,mode=line`. It sees the checkpoints up to --at,
and its adapter is made as a job makes it: alpha, gate and refit included. Prints a Markdown table, a row for
each run, horizon and method. All models answer the same held-out questions, so a gain over the checkpoint
that was jumped from has a smaller standard error than the accuracies it is made of. A run that
benchmarks.rlvr.run has not made needs --task, and --base where its base model is not the task's own.
"""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from demo.evaluate import Grades
from demo.task import HELD_OUT, Task

from benchmarks.models import adapter_files
from benchmarks.rlvr.bases import base_of
from benchmarks.rlvr.evaluate import Estimate, grade
from benchmarks.rlvr.record import RECORD, Record
from benchmarks.rlvr.tasks import TASKS
from benchmarks.written import markdown_row, markdown_table
from nextrapolate.folders import LocalCheckpoint, find_checkpoints
from nextrapolate.methods import make_method
from nextrapolate.schemas import Gate, Method
from nextrapolate_numerics import (
    Backtest,
    Extraction,
    GateThresholds,
    NoBacktestError,
    Trajectory,
    Update,
    backtest,
    extend,
    extract,
)
from nextrapolate_worker.methods import numerics_method

COLUMNS = (
    "run", "jump", "method", "before", "after", "gain", "true gain", "greedy before", "greedy gain",
    "greedy true gain",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A folder of checkpoints, and what its models are graded on."""

    folder: Path
    task: Task
    base: Path
    held_out: int = HELD_OUT

    @cached_property
    def questions(self) -> Sequence[str]:
        """The held-out questions."""
        return self.task.split(self.held_out)[1]

    def grade(self, adapter: Path) -> Grades:
        """Grade an adapter's folder."""
        return grade(self.task, self.base, adapter, self.questions)


@dataclass(frozen=True)
class Fitted:
    """What a method makes of some checkpoints, as a job would, before alpha."""

    extraction: Extraction
    update: Update
    scores: Backtest | None

    @classmethod
    def to(cls, checkpoints: Sequence[LocalCheckpoint], method: Method) -> "Fitted":
        """Read the checkpoints and fit the method to them."""
        files = [adapter_files(found.folder, found.step) for found in checkpoints]
        algorithm = numerics_method(method)
        extraction = extract(Trajectory.open(files), algorithm, method.horizon_steps)
        update = algorithm.fit(extraction, method.horizon_steps)
        scores = None
        with suppress(NoBacktestError):
            scores = backtest(algorithm, extraction, method.horizon_steps)
        return cls(extraction, update, scores)

    def write(self, alpha: float, gate: Gate, out: Path) -> Path:
        """Write the adapter that lies alpha updates ahead, gate and refit included, and return its folder."""
        thresholds = GateThresholds(gate.min_energy_ratio, gate.min_backtest_cosine)
        extend(self.extraction, self.update, alpha=alpha, gate=thresholds, backtest=self.scores, folder=out)
        return out


def extrapolated(checkpoints: Sequence[LocalCheckpoint], method: Method, gate: Gate, out: Path) -> Path:
    """Write the adapter that a job on these checkpoints would give, and return its folder."""
    return Fitted.to(checkpoints, method).write(method.alpha, gate, out)


def rows(run: Run, at: int, horizons: Sequence[int], methods: Sequence[str], gate: Gate) -> None:
    """Print a row for each horizon and method."""
    visible = find_checkpoints(run.folder, until=at)
    before = run.grade(run.folder / f"checkpoint-{at}")
    for horizon in horizons:
        true = run.grade(run.folder / f"checkpoint-{at + horizon}")
        for text in methods:
            with TemporaryDirectory() as out:
                after = run.grade(extrapolated(visible, parsed(text, horizon), gate, Path(out)))
            cells = (
                run.folder.name,
                f"{at} → {at + horizon}",
                text,
                Estimate.of(before.sampled),
                Estimate.of(after.sampled),
                Estimate.of(after.sampled - before.sampled),
                Estimate.of(true.sampled - before.sampled),
                Estimate.of(before.greedy),
                Estimate.of(after.greedy - before.greedy),
                Estimate.of(true.greedy - before.greedy),
            )
            print(markdown_row(cells), flush=True)


def parsed(text: str, horizon: int) -> Method:
    """Make the method that `name,parameter=value,...` asks for."""
    name, *parameters = text.split(",")
    return make_method(name, horizon_steps=horizon, **dict(pair.split("=") for pair in parameters))


def opened(folder: Path, task: str | None, base: Path | None, held_out: int) -> Run:
    """Return the run in a folder, its task from run.json if not given."""
    chosen = TASKS[task or Record.read(folder / RECORD).settings.task]
    return Run(folder, chosen, base or base_of(chosen), held_out)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--at", type=int, default=150)
    parser.add_argument("--horizons", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--methods", nargs="+", default=["autoregression", "weight-extrapolation"])
    parser.add_argument("--min-backtest-cosine", type=float, default=0.0, help="of the gate; -1 turns it off")
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="number of questions")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    gate = Gate(min_backtest_cosine=arguments.min_backtest_cosine)
    print(markdown_table(COLUMNS, ()))
    for folder in arguments.runs:
        run = opened(folder, arguments.task, arguments.base, arguments.held_out)
        rows(run, arguments.at, arguments.horizons, arguments.methods, gate)


if __name__ == "__main__":
    main()
