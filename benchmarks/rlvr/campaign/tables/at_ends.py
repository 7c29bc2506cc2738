"""Runs at the best constant rates that end with the average of their last checkpoints."""

from collections import defaultdict
from collections.abc import Sequence

from benchmarks.rlvr.campaign.compare import pairs
from benchmarks.rlvr.campaign.plan import BEST_RATES, FRESH_SEEDS, Planned, at_best_rates, planned
from benchmarks.rlvr.campaign.results import Point, Results, first_at
from benchmarks.rlvr.campaign.sweep import AVERAGE, ENDED_AT, Swept
from benchmarks.rlvr.campaign.tables.cells import counted, overall, table, together, with_error
from benchmarks.rlvr.campaign.variants import BEST, RECOMMENDED, SHORTER, VARIANTS


def ended(results: Results, swept: Sequence[Swept]) -> str:
    """The step to end at for what vanilla has after 400, as it is and averaged, on the fresh seeds."""
    averaged = _curves(swept)
    rows = []
    for way in ("vanilla", BEST, SHORTER, *RECOMMENDED):
        made = pairs(results, at_best_rates([way], FRESH_SEEDS))
        found = [pair for pair in made if pair.run.name in averaged]
        if len(found) < len(FRESH_SEEDS) * len(BEST_RATES):
            continue
        steps = {pair.run.name: first_at(averaged[pair.run.name], pair.goal) for pair in found}
        by_task = (
            together([steps[pair.run.name] for pair in found if pair.run.settings.task == task])
            for task in BEST_RATES
        )
        both = [
            first_at(averaged[pair.run.name], averaged[rival][-1].accuracy)
            for pair in found
            if (rival := _rival(pair.run)) in averaged
        ]
        beside = counted([first_at(averaged.get(_rival(pair.run), []), pair.goal) for pair in found])
        saved = [rival - paid for rival, paid in zip(beside, counted(list(steps.values())), strict=True)]
        rows.append(
            (VARIANTS[way].title, *by_task, overall(list(steps.values())), with_error(saved), overall(both))
        )
    columns = (
        "run", *(f"{task}, {rate:g}" for task, rate in BEST_RATES.items()), "all", "saved",
        "all, to vanilla's average",
    )  # fmt: skip
    return table(columns, rows)


def _rival(run: Planned) -> str:
    """Name of the run without jumps of the same task, rate and seed."""
    return planned("vanilla", run.settings.task, run.settings.learning_rate, run.settings.seed).name


def _curves(swept: Sequence[Swept]) -> dict[str, list[Point]]:
    """By run, what its averages measured, in the order of their steps; of runs that have all of them."""
    found: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for row in swept:
        if row.method == AVERAGE:
            found[row.run][row.step] = row.sampled
    return {
        run: [Point(step, measured[step]) for step in ENDED_AT]
        for run, measured in found.items()
        if measured.keys() >= set(ENDED_AT)
    }
