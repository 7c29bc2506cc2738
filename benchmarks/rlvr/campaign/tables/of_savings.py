"""Steps saved at the best constant rates: as soon as a run touches the goal, and counted with more caution.

Late in such runs accuracy goes up and down by more than it rises in fifty steps. A run that is a little ahead
then touches the goal long before it is there for good, so that how it is counted matters more than the way.
"""

from collections.abc import Callable, Sequence
from itertools import chain

from benchmarks.rlvr.campaign.compare import Pair, pairs
from benchmarks.rlvr.campaign.plan import BEST_RATES, FRESH_SEEDS, SEEDS, at_best_rates
from benchmarks.rlvr.campaign.results import Results
from benchmarks.rlvr.campaign.tables.cells import counted, table, with_error
from benchmarks.rlvr.campaign.variants import BEST, RECOMMENDED, SHORTER, VARIANTS

_COUNTS: dict[str, Callable[[Pair], float | None]] = {
    "first there": lambda pair: pair.steps,
    "by fits that never fall": lambda pair: pair.steps_by_fits,
    "there for good": lambda pair: pair.steps_until_kept,
    "first there, greedy": lambda pair: pair.greedy.steps,
}
_SEEDS = {"all six": (*SEEDS, *FRESH_SEEDS), "fresh": FRESH_SEEDS}


def savings(results: Results) -> str:
    """By count, seeds and way: steps, and those saved beside vanilla of the same task and seed."""
    rows = [
        (count, chosen, VARIANTS[way].title, *cells)
        for count, steps in _COUNTS.items()
        for chosen, seeds in _SEEDS.items()
        for way in (BEST, SHORTER, *RECOMMENDED)
        if (cells := _cells(results, way, seeds, steps))
    ]
    return table(("counted", "seeds", "run", "vanilla", "steps", "get there", "saved", *BEST_RATES), rows)


def _cells(
    results: Results, way: str, seeds: Sequence[int], steps: Callable[[Pair], float | None]
) -> tuple[object, ...]:
    """What follows the title; nothing where runs are missing, since another mean has another goal."""
    found = pairs(results, at_best_rates([way], seeds))
    if len(found) < len(seeds) * len(BEST_RATES):
        return ()
    reached = [steps(pair) for pair in found]
    made, rivals = counted(reached), counted([steps(pair.of_rival) for pair in found])
    saved: dict[str, list[float]] = {task: [] for task in BEST_RATES}
    for pair, rival, paid in zip(found, rivals, made, strict=True):
        saved[pair.run.settings.task].append(rival - paid)
    got_there = f"{sum(paid is not None for paid in reached)} of {len(found)}"
    of_all = with_error(list(chain(*saved.values())))
    return (with_error(rivals), with_error(made), got_there, of_all, *map(with_error, saved.values()))
