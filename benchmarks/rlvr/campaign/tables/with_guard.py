"""Cycles with the guard and without, beside vanilla at equal steps."""

from collections.abc import Sequence
from math import sqrt
from statistics import mean

from benchmarks.rlvr.campaign.compare import Pair, noise, pairs, worse_than_noise
from benchmarks.rlvr.campaign.plan import FASTER, RATE, SEEDS, TASKS, runs_of
from benchmarks.rlvr.campaign.results import Results, Spread
from benchmarks.rlvr.campaign.tables.cells import table, together
from benchmarks.rlvr.campaign.variants import BEST, GUARDED, OFTEN, RECOMMENDED, SHORTER, VARIANTS

_T = 4.303
"""Student's, for 95 % on either side together and the two degrees of freedom that three seeds leave."""


def guard(results: Results) -> str:
    """The worst difference, how often it was more than noise, and what the guard's answers cost."""
    rows = []
    for rate in (RATE, *FASTER):
        for task in TASKS:
            allowed = noise(results, task, rate)
            for way in (BEST, OFTEN, SHORTER, *GUARDED, *RECOMMENDED):
                found = pairs(results, runs_of([way], [task], [rate]))
                if found:
                    rows.append((task, f"{rate:g}", VARIANTS[way].title, *_cells(found, allowed)))
    columns = (
        "task", "rate", "run", "runs", "jumps refused", "worst", "at the end (95 %)", "noise",
        "worse than noise", "answers for each of training's", "steps to vanilla's 400",
        "with the guard's answers as steps",
    )  # fmt: skip
    return table(columns, rows)


def _cells(found: Sequence[Pair], allowed: float | None) -> tuple[str, ...]:
    jumps = [jump for pair in found for jump in pair.record.jumps]
    last = Spread.of([list(pair.differences.values())[-1] for pair in found])
    below = "" if allowed is None else "{} of {}".format(*worse_than_noise(found, allowed))
    return (
        f"{len(found)}",
        f"{sum(jump.alpha is None for jump in jumps)} of {len(jumps)}",
        f"{min(pair.worst for pair in found):+.3f}",
        _with_interval(last),
        "" if allowed is None else f"{allowed:.3f}",
        below,
        f"{mean(pair.guard_answers for pair in found):.2f}",
        together([pair.steps for pair in found]),
        together([pair.steps_with_guard for pair in found]),
    )


def _with_interval(found: Spread) -> str:
    """The mean, and where it may lie; of fewer than all seeds the mean alone."""
    if found.runs < len(SEEDS):
        return f"{found.mean:+.3f}"
    half = _T * found.deviation / sqrt(found.runs)
    return f"{found.mean:+.3f} ({found.mean - half:+.3f} to {found.mean + half:+.3f})"
