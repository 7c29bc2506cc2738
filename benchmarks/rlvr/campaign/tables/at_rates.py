"""Steps saved at larger constant learning rates, and at the best of them."""

from collections.abc import Sequence

from benchmarks.rlvr.campaign.compare import Pair, noise, pairs, worse_than_noise
from benchmarks.rlvr.campaign.plan import (
    BEYOND,
    FASTER,
    FRESH_SEEDS,
    LARGE,
    RATE,
    SEEDS,
    TASKS,
    runs_of,
)
from benchmarks.rlvr.campaign.results import Results, Spread, at, steps_to
from benchmarks.rlvr.campaign.sweep import AVERAGE, AVERAGED_AT, Swept
from benchmarks.rlvr.campaign.tables.cells import accuracy, overall, table, together
from benchmarks.rlvr.campaign.variants import (
    BEST,
    GUARDED,
    OFTEN,
    RECOMMENDED,
    SHORTER,
    VANILLA,
    VARIANTS,
)

_RATES = (RATE, *FASTER)
_WAYS = ("vanilla", BEST, OFTEN, SHORTER, *GUARDED, *RECOMMENDED)


def rates(results: Results) -> str:
    """All rates, and one past them; steps to vanilla's last accuracy at the same rate and at the best one."""
    rows = []
    for task in TASKS:
        goal = _best(results, task)
        for rate in (*_RATES, BEYOND):
            for way in _WAYS:
                runs = runs_of([way], [task], [rate])
                found = pairs(results, runs)
                if found and goal is not None:
                    rows.append(
                        (
                            task,
                            f"{rate:g}",
                            VARIANTS[way].title,
                            *(accuracy(results, runs, step) for step in (100, 200, 300, 400)),
                            together([pair.steps for pair in found]),
                            together([steps_to(pair.record, goal[1].mean) for pair in found]),
                        )
                    )
    columns = (
        "task", "rate", "run", "at 100", "at 200", "at 300", "at 400", "steps to vanilla's 400",
        "to the best rate's",
    )  # fmt: skip
    return table(columns, rows)


def best(results: Results) -> str:
    """By way to train, at the rate at which vanilla came furthest on the task."""
    return _at_best(results, _WAYS, SEEDS)


def again(results: Results) -> str:
    """The same, on seeds that nothing had been looked at on."""
    return _at_best(results, ("vanilla", BEST, SHORTER, *RECOMMENDED), FRESH_SEEDS)


def averages(results: Results, swept: Sequence[Swept]) -> str:
    """Late in runs at large rates: the model as it is, and the average of its last checkpoints."""
    averaged = {(row.run, row.step): row.sampled for row in swept if row.method == AVERAGE}
    rows = []
    for task in TASKS:
        for rate in LARGE:
            for way in ("vanilla", BEST, SHORTER):
                found = [
                    (run, record)
                    for run, record in results.of(runs_of([way], [task], [rate]))
                    if (run.name, AVERAGED_AT[0]) in averaged
                ]
                cells = [
                    str(Spread.of(values)) if values else ""
                    for step in AVERAGED_AT
                    for values in (
                        [at(record, step) for _, record in found if step <= record.settings.steps],
                        [averaged[run.name, step] for run, _ in found if (run.name, step) in averaged],
                    )
                ]
                if found:
                    rows.append((task, f"{rate:g}", VARIANTS[way].title, len(found), *cells))
    columns = (name for step in AVERAGED_AT for name in (f"at {step}", "averaged"))
    return table(("task", "rate", "run", "runs", *columns), rows)


def _at_best(results: Results, ways: Sequence[str], seeds: Sequence[int]) -> str:
    goals = {task: goal for task in TASKS if (goal := _best(results, task)) is not None}
    rows = []
    for way in ways:
        runs = {task: runs_of([way], [task], [rate], seeds) for task, (rate, _) in goals.items()}
        found = {task: pairs(results, of_task) for task, of_task in runs.items()}
        everything = [pair for of_task in found.values() for pair in of_task]
        if everything:
            by_task = (together([pair.steps for pair in of_task]) for of_task in found.values())
            # Of all tasks, or of none: a mean over some of them would be another goal's.
            all_tasks = _by_way(everything) if all(found.values()) else ("", "", "", "")
            rows.append((VARIANTS[way].title, *by_task, *all_tasks, _worse(results, everything)))
    columns = (
        "run", *(f"{task}, {rate:g}" for task, (rate, _) in goals.items()), "all", "all, for good",
        "all, with the guard's answers", "all, greedy", "worse than noise",
    )  # fmt: skip
    return table(columns, rows)


def _by_way(found: Sequence[Pair]) -> tuple[str, ...]:
    ways = ("steps", "steps_until_kept", "steps_with_guard")
    of_sampled = (overall([getattr(pair, way) for pair in found]) for way in ways)
    return (*of_sampled, overall([pair.greedy.steps for pair in found]))


def _worse(results: Results, found: Sequence[Pair]) -> str:
    """How many measurements lie below vanilla's by more than noise, and the least of all differences."""
    below = measured = 0
    for pair in found:
        made = pair.run.settings
        allowed = noise(results, made.task, made.learning_rate)
        if allowed is None:
            return ""
        beyond, of = worse_than_noise([pair], allowed)
        below, measured = below + beyond, measured + of
    return f"{below} of {measured}, {min(pair.worst for pair in found):+.3f} at worst"


def _best(results: Results, task: str) -> tuple[float, Spread] | None:
    """The rate at which vanilla came furthest, and how far."""
    ends = {
        rate: Spread.of([at(record, VANILLA.steps) for _, record in found])
        for rate in _RATES
        if (found := results.of(runs_of(["vanilla"], [task], [rate])))
    }
    return max(ends.items(), key=lambda entry: entry[1].mean, default=None)
