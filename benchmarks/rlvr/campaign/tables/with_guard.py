"""Cycles with the guard and without, beside vanilla at equal steps."""

from collections.abc import Sequence
from statistics import mean

from benchmarks.rlvr.campaign.compare import Pair, noise, pairs
from benchmarks.rlvr.campaign.plan import FASTER, RATE, TASKS, runs_of
from benchmarks.rlvr.campaign.results import Results
from benchmarks.rlvr.campaign.tables.cells import table, together
from benchmarks.rlvr.campaign.variants import BEST, GUARDED, OFTEN, SHORTER, VARIANTS


def guard(results: Results) -> str:
    """The worst difference, how often it was more than noise, and what the guard's answers cost."""
    rows = []
    for rate in (RATE, *FASTER):
        for task in TASKS:
            allowed = noise(results, task, rate)
            for way in (BEST, OFTEN, SHORTER, *GUARDED):
                found = pairs(results, runs_of([way], [task], [rate]))
                if found:
                    rows.append((task, f"{rate:g}", VARIANTS[way].title, *_cells(found, allowed)))
    columns = (
        "task", "rate", "run", "runs", "jumps refused", "worst", "at the end", "noise", "worse than noise",
        "answers for each of training's", "steps to vanilla's 400", "with the guard's answers as steps",
    )  # fmt: skip
    return table(columns, rows)


def _cells(found: Sequence[Pair], allowed: float | None) -> tuple[str, ...]:
    jumps = [jump for pair in found for jump in pair.record.jumps]
    differences = [value for pair in found for step, value in pair.differences.items() if step]
    last = mean(list(pair.differences.values())[-1] for pair in found)
    beyond = "" if allowed is None else sum(value < -allowed for value in differences)
    return (
        f"{len(found)}",
        f"{sum(jump.alpha is None for jump in jumps)} of {len(jumps)}",
        f"{min(differences):+.3f}",
        f"{last:+.3f}",
        "" if allowed is None else f"{allowed:.3f}",
        "" if allowed is None else f"{beyond} of {len(differences)}",
        f"{mean(pair.guard_answers for pair in found):.2f}",
        together([pair.steps for pair in found]),
        together([pair.steps_with_guard for pair in found]),
    )
