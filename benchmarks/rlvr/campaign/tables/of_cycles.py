"""Other cycles, on the seed that they were chosen by, and other algorithms."""

from benchmarks.rlvr.campaign.compare import Pair, pairs
from benchmarks.rlvr.campaign.plan import SEEDS, TASKS, TUNING_SEED, TUNING_TASKS, runs_of
from benchmarks.rlvr.campaign.results import Results, at
from benchmarks.rlvr.campaign.tables.cells import accuracy, each, table
from benchmarks.rlvr.campaign.variants import ALGORITHMS, CYCLES, VARIANTS

_SHOWN = (100, 200, 250)


def cycles(results: Results) -> str:
    """Cycles of several lengths, methods and strengths, at the usual rate."""
    rows = []
    for variant in ("vanilla", *CYCLES):
        cells = [cell for task in TUNING_TASKS for cell in _tuned(results, variant, task)]
        if any(cells):
            rows.append((VARIANTS[variant].title, *cells))
    columns = (*(f"at {step}" for step in _SHOWN), "steps to vanilla's 400")
    return table(("cycle", *(f"{task}: {column}" for task in TUNING_TASKS for column in columns)), rows)


def _tuned(results: Results, variant: str, task: str) -> tuple[str, ...]:
    runs = runs_of([variant], [task], seeds=[TUNING_SEED])
    reached = each([pair.steps for pair in pairs(results, runs)])
    return (*(accuracy(results, runs, step) for step in _SHOWN), reached)


def algorithms(results: Results) -> str:
    """RLOO, and REINFORCE++ as far as TRL has it."""
    rows = []
    for variant in ALGORITHMS:
        for task in TASKS:
            for pair in pairs(results, runs_of([variant], [task], seeds=SEEDS[:1])):
                shown = (_at(pair, step) for step in (100, 200, 250, 400))
                reached = "" if pair.record == pair.rival else each([pair.steps])
                rows.append((VARIANTS[variant].title, task, *shown, reached))
    columns = ("run", "task", "at 100", "at 200", "at 250", "at 400", "steps to vanilla's 400")
    return table(columns, rows)


def _at(pair: Pair, step: int) -> str:
    return f"{at(pair.record, step):.3f}" if step <= pair.record.settings.steps else ""
