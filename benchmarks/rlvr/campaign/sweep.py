"""The adapter after a jump as it is, nothing trained on from it: by method and alpha.

Made from the checkpoints of the campaign's vanilla runs. A row that is there is not made again.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.rlvr.bases import base_of
from benchmarks.rlvr.campaign.one_run import finished
from benchmarks.rlvr.campaign.plan import RATE, SEEDS, TASKS, Planned, planned
from benchmarks.rlvr.campaign.variants import BRANCHES_AT
from benchmarks.rlvr.jumps import Fitted, Run, parsed
from benchmarks.rlvr.tasks import TASKS as ALL_TASKS
from nextrapolate.folders import find_checkpoints
from nextrapolate.schemas import Gate

METHODS = ("auto", "autoregression", "weight-extrapolation", "next", "relex", "alpharl", "maec")
PAPER = "next,preset=paper"
"""Trained for half a minute a run: on the first seed alone."""
ALPHAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
HORIZON = 50


@dataclass(frozen=True)
class Swept:
    """Accuracy of the adapter that lies `alpha` updates of a method ahead of step 150."""

    run: str
    method: str
    alpha: float
    """0 is the checkpoint itself."""
    sampled: float
    greedy: float


class Sweep:
    """The rows that there are, in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.rows = [Swept(**row) for row in json.loads(file.read_text())] if file.exists() else []

    def complete(self, runs: Path, console: Console, held_out: int) -> None:
        """Add the rows of all vanilla runs that are finished."""
        for run in (planned("vanilla", task, RATE, seed) for seed in SEEDS for task in TASKS):
            if finished(run, runs):
                for method in self._missing(run):
                    self.rows += swept(run, runs, method, held_out)
                    self._file.write_text(json.dumps([asdict(row) for row in self.rows], indent=1) + "\n")
                    console.print(f"swept alpha of {method} on {run.name}")

    def _missing(self, run: Planned) -> list[str]:
        there = {row.method for row in self.rows if row.run == run.name}
        wanted = (*METHODS, PAPER) if run.settings.seed == SEEDS[0] else METHODS
        return [method for method in wanted if method not in there]


def swept(planned_run: Planned, runs: Path, method: str, held_out: int) -> Iterator[Swept]:
    """Yield a row for each alpha."""
    task = ALL_TASKS[planned_run.settings.task]
    run = Run(runs / planned_run.name, task, base_of(task), held_out)
    fitted = Fitted.to(find_checkpoints(run.folder, until=BRANCHES_AT), parsed(method, HORIZON))
    for alpha in ALPHAS:
        with TemporaryDirectory() as out:
            accuracy = run.grade(fitted.write(alpha, Gate(), Path(out))).accuracy
        yield Swept(planned_run.name, method, alpha, accuracy.sampled, accuracy.greedy)
