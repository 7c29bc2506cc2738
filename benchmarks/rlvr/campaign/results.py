"""What runs measured: curves of accuracy, steps to an accuracy, and means over seeds."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

from benchmarks.rlvr.campaign.one_run import finished
from benchmarks.rlvr.campaign.plan import Planned
from benchmarks.rlvr.record import RECORD, Record

FOLDER = Path(__file__).parents[1] / "results"

Decoding = Literal["sampled", "greedy"]
"""Of an answer: at temperature 1, or each token the most probable one."""


@dataclass(frozen=True)
class Point:
    """A measurement of a run."""

    step: int
    """Steps of training paid."""
    accuracy: float


def curve(record: Record, decoding: Decoding = "sampled") -> list[Point]:
    """Return a run's measurements in order; where a jump was due, the one before and the one after it."""
    measured = [(row.step, 0, row.accuracy) for row in record.rows]
    measured += [(jump.step, 1, jump.accuracy) for jump in record.jumps]
    return [
        Point(step, accuracy.sampled if decoding == "sampled" else accuracy.greedy)
        for step, _, accuracy in sorted(measured, key=lambda entry: entry[:2])
    ]


def at(record: Record, step: int, decoding: Decoding = "sampled") -> float:
    """Return the accuracy when `step` steps were paid, on lines between measurements.

    After the jump, where one was due then.

    Raises:
        LookupError: the run has not come that far.
    """
    points = curve(record, decoding)
    for before, after in pairwise(points):
        if before.step <= step < after.step:
            share = (step - before.step) / (after.step - before.step)
            return before.accuracy + share * (after.accuracy - before.accuracy)
    if not points or points[-1].step != step:
        raise LookupError(f"the run has not come to step {step}")
    return points[-1].accuracy


def steps_to(record: Record, accuracy: float, decoding: Decoding = "sampled") -> float | None:
    """Return after how many paid steps that accuracy was reached, on lines between measurements.

    None where it never was.
    """
    return first_at(curve(record, decoding), accuracy)


def first_at(points: Sequence[Point], accuracy: float) -> float | None:
    """Return the step at which measurements in order have that accuracy, on lines between them; or None."""
    for before, after in pairwise(points):
        if after.accuracy >= accuracy:
            share = (accuracy - before.accuracy) / (after.accuracy - before.accuracy)
            return before.step + max(share, 0.0) * (after.step - before.step)
    return None


def steps_until_kept(record: Record, accuracy: float, decoding: Decoding = "sampled") -> float | None:
    """Return after how many paid steps that accuracy was there for good, on lines between measurements.

    None where the last measurement is below it.
    """
    points = curve(record, decoding)
    if points[-1].accuracy < accuracy:
        return None
    for before, after in reversed(list(pairwise(points))):
        if before.accuracy < accuracy:
            share = (accuracy - before.accuracy) / (after.accuracy - before.accuracy)
            return before.step + share * (after.step - before.step)
    return 0.0


def monotone(points: Sequence[Point]) -> list[Point]:
    """Return the curve closest to measurements in order, in squares, that never falls.

    A noisy curve touches an accuracy before it has risen to it, and leaves it after; this one does neither.
    Adjacent violators are pooled (Barlow et al., Statistical Inference under Order Restrictions, 1972).
    """
    pools: list[list[Point]] = []
    for point in points:
        pools.append([point])
        while len(pools) > 1 and _level(pools[-2]) > _level(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    return [Point(point.step, _level(pool)) for pool in pools for point in pool]


def _level(pool: Sequence[Point]) -> float:
    return mean(point.accuracy for point in pool)


def seconds_to(record: Record, step: float) -> float:
    """Return the processor's seconds of training until then, and what the run waited for its jumps."""
    waited = sum(jump.seconds for jump in record.jumps if jump.step <= step)
    before, after = next(
        (before, after) for before, after in pairwise(record.rows) if before.step <= step <= after.step
    )
    share = (step - before.step) / (after.step - before.step)
    return waited + before.seconds + share * (after.seconds - before.seconds)


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, and how far they lie apart."""

    mean: float
    deviation: float
    """Standard deviation of one run; 0 where there is one run only."""
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return that of some values, one a run."""
        return cls(mean(values), stdev(values) if len(values) > 1 else 0.0, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.3f}{self._spread}"

    @property
    def signed(self) -> str:
        """With its sign, for differences."""
        return f"{self.mean:+.3f}{self._spread}"

    @property
    def _spread(self) -> str:
        return f" ± {self.deviation:.3f}" if self.runs > 1 else ""


class Results:
    """The runs that are finished."""

    def __init__(self, records: dict[str, Record]) -> None:
        self.records = records

    @classmethod
    def read(cls, folder: Path = FOLDER) -> "Results":
        """Read all files of results."""
        return cls({path.stem: Record.read(path) for path in sorted(folder.glob("*-s[0-9].json"))})

    def of(self, runs: Iterable[Planned]) -> list[tuple[Planned, Record]]:
        """Return those of these runs that are finished."""
        return [(run, self.records[run.name]) for run in runs if run.name in self.records]


def keep(runs: Iterable[Planned], made: Path, folder: Path = FOLDER) -> None:
    """Copy the records of the runs that are finished to where results lie."""
    for run in runs:
        if finished(run, made):
            shutil.copyfile(made / run.name / RECORD, folder / f"{run.name}.json")
