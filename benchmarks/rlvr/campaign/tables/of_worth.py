"""What a jump changes at once, and what it is worth with the steps that follow it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from math import inf, sqrt
from statistics import mean, stdev

from benchmarks.rlvr.campaign.compare import pairs
from benchmarks.rlvr.campaign.plan import LARGE, MEASURE_EVERY, RATE, TASKS, runs_of
from benchmarks.rlvr.campaign.results import Results, steps_to
from benchmarks.rlvr.campaign.tables.cells import table
from benchmarks.rlvr.campaign.variants import BEST, OFTEN, SHORTER, VARIANTS
from benchmarks.rlvr.record import Record

_CHANGES = (-inf, -0.1, -0.02, -0.005, 0.005, 0.02, inf)


@dataclass(frozen=True)
class _Worth:
    """What a jump changed at once, and the steps of vanilla that it is worth with the next 20.

    Steps are None where vanilla never had what the run had: they may be many, and nobody knows how many.
    """

    change: float
    steps: float | None


def worth(results: Results) -> str:
    """Steps of vanilla that a jump and the steps after it are worth, by what it changes at once.

    And what the same count makes of steps without a jump, which noise does not leave at 20.
    """
    rows = []
    for rate in (RATE, *LARGE):
        found = {VARIANTS[way].title: list(_jumps(results, rate, way)) for way in (BEST, OFTEN, SHORTER)}
        found["vanilla, counted in steps of another seed"] = list(_without_jumps(results, rate))
        rows += [(f"{rate:g}", title, *_cells(jumps)) for title, jumps in found.items() if jumps]
    changes = (_told(least, most) for least, most in pairwise(_CHANGES))
    return table(("rate", "run", *changes, "beyond vanilla's last"), rows)


def _jumps(results: Results, rate: float, way: str) -> Iterator[_Worth]:
    for pair in pairs(results, runs_of([way], rates=[rate])):
        own = _sampled(pair.record)
        for jump in pair.record.jumps:
            if jump.step in own and jump.step + MEASURE_EVERY in own:
                change = jump.accuracy.sampled - own[jump.step]
                yield _Worth(change, _steps(own, jump.step, pair.rival))


def _without_jumps(results: Results, rate: float) -> Iterator[_Worth]:
    for task in TASKS:
        records = [record for _, record in results.of(runs_of(["vanilla"], [task], [rate]))]
        for record, rival in permutations(records, 2):
            own = _sampled(record)
            for step in own:
                if step >= 2 * MEASURE_EVERY and step + MEASURE_EVERY in own:
                    yield _Worth(0.0, _steps(own, step, rival))


def _sampled(record: Record) -> dict[int, float]:
    return {row.step: row.accuracy.sampled for row in record.rows}


def _steps(own: Mapping[int, float], step: int, rival: Record) -> float | None:
    """Steps of the rival from what a run had at `step`, before its jump, to what it had 20 steps later."""
    begin, end = (steps_to(rival, own[at]) for at in (step, step + MEASURE_EVERY))
    return None if begin is None or end is None else end - begin


def _cells(jumps: Sequence[_Worth]) -> Iterator[str]:
    for least, most in pairwise(_CHANGES):
        yield _cell([jump.steps for jump in jumps if least <= jump.change < most and jump.steps is not None])
    yield str(sum(jump.steps is None for jump in jumps))


def _cell(steps: Sequence[float]) -> str:
    """Mean and standard error, and of how many."""
    if len(steps) < 2:
        return "".join(f"{one:.0f} (1)" for one in steps)
    return f"{mean(steps):.0f} ± {stdev(steps) / sqrt(len(steps)):.0f} ({len(steps)})"


def _told(least: float, most: float) -> str:
    if least == -inf:
        return f"less than {most:+g}"
    return f"{least:+g} or more" if most == inf else f"{least:+g} to {most:+g}"
