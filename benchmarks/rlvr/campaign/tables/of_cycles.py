"""Other cycles, on the seed that they were chosen by, and other algorithms."""

from benchmarks.rlvr.campaign.compare import pairs
from benchmarks.rlvr.campaign.plan import TASKS, TUNING_SEED, TUNING_TASKS, runs_of
from benchmarks.rlvr.campaign.results import Results
from benchmarks.rlvr.campaign.tables.cells import accuracy, each, table, together
from benchmarks.rlvr.campaign.variants import CYCLES, REINFORCE, RLOO, VANILLA, VARIANTS

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
    for variant in (*RLOO, *REINFORCE):
        for task in TASKS:
            runs = runs_of([variant], [task])
            found = pairs(results, runs)
            if found:
                shown = (accuracy(results, runs, step) for step in (*_SHOWN, VANILLA.steps))
                reached = together([pair.steps for pair in found])
                rows.append((VARIANTS[variant].title, task, len(found), *shown, reached))
    columns = (*(f"at {step}" for step in (*_SHOWN, VANILLA.steps)), "steps to the rival's 400")
    return table(("run", "task", "runs", *columns), rows)
