"""Jumps as they are, nothing trained on from them: by method and alpha, and averages late in noisy runs.

Made from the checkpoints of the campaign's runs. A row that is there is not made again.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.rlvr.bases import base_of
from benchmarks.rlvr.campaign.one_run import finished
from benchmarks.rlvr.campaign.plan import (
    FRESH_SEEDS,
    LARGE,
    MEASURE_EVERY,
    RATE,
    SEEDS,
    TASKS,
    Planned,
    at_best_rates,
    runs_of,
)
from benchmarks.rlvr.campaign.variants import BEST, BRANCHES_AT, RECOMMENDED, SHORTER, VANILLA
from benchmarks.rlvr.jumps import Fitted, Run, parsed
from benchmarks.rlvr.tasks import TASKS as ALL_TASKS
from nextrapolate.folders import find_checkpoints
from nextrapolate.schemas import Gate

METHODS = ("auto", "autoregression", "weight-extrapolation", "next", "relex", "alpharl", "maec")
PAPER = "next,preset=paper"
"""Trained for half a minute a run: on the first seed alone."""
ALPHAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
HORIZON = 50
AVERAGE = "wsm"
"""Of the last 50 steps, as a falling rate would weigh them."""
AVERAGED_AT = (200, 300, 400)
ENDED_AT = tuple(range(100, VANILLA.steps + 1, MEASURE_EVERY))
"""At the best rates: steps at which a run could have ended, with an average."""


@dataclass(frozen=True)
class Swept:
    """Accuracy of the adapter that lies `alpha` updates of a method ahead of a step of a run."""

    run: str
    method: str
    alpha: float
    """0 is the checkpoint itself."""
    sampled: float
    greedy: float
    step: int = BRANCHES_AT


@dataclass(frozen=True)
class Asked:
    """What a method makes of a run's checkpoints until a step, for several alphas."""

    run: Planned
    method: str
    alphas: tuple[float, ...] = ALPHAS
    step: int = BRANCHES_AT


def asked() -> Iterator[Asked]:
    """Yield all that is to be swept, the first seed first."""
    for seed in SEEDS:
        for run in runs_of(["vanilla"], TASKS, [RATE], [seed]):
            methods = (*METHODS, PAPER) if seed == SEEDS[0] else METHODS
            yield from (Asked(run, method) for method in methods)
        for run in runs_of(("vanilla", BEST, SHORTER), TASKS, LARGE, [seed]):
            yield from (Asked(run, AVERAGE, (1.0,), step) for step in AVERAGED_AT)
    for run in at_best_rates(("vanilla", BEST, SHORTER, *RECOMMENDED), FRESH_SEEDS):
        yield from (Asked(run, AVERAGE, (1.0,), step) for step in ENDED_AT)


class Sweep:
    """The rows that there are, in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.rows = [Swept(**row) for row in json.loads(file.read_text())] if file.exists() else []

    def complete(self, runs: Path, console: Console, held_out: int) -> None:
        """Add the rows of all runs that are finished."""
        there = {(row.run, row.method, row.step) for row in self.rows}
        for wanted in asked():
            if (wanted.run.name, wanted.method, wanted.step) not in there and finished(wanted.run, runs):
                self.rows += swept(wanted, runs, held_out)
                self._file.write_text(json.dumps([asdict(row) for row in self.rows]) + "\n")
                console.print(f"swept {wanted.method} at step {wanted.step} of {wanted.run.name}")


def swept(wanted: Asked, runs: Path, held_out: int) -> Iterator[Swept]:
    """Yield a row for each alpha."""
    task = ALL_TASKS[wanted.run.settings.task]
    run = Run(runs / wanted.run.name, task, base_of(task), held_out)
    fitted = Fitted.to(find_checkpoints(run.folder, until=wanted.step), parsed(wanted.method, HORIZON))
    for alpha in wanted.alphas:
        with TemporaryDirectory() as out:
            accuracy = run.grade(fitted.write(alpha, Gate(), Path(out))).accuracy
        yield Swept(wanted.run.name, wanted.method, alpha, accuracy.sampled, accuracy.greedy, wanted.step)
