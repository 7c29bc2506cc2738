"""Rates that fall to 0 over a run, which takes the noise out of its last steps: without jumps, and with."""

from benchmarks.rlvr.campaign.plan import BEST_RATES, runs_of
from benchmarks.rlvr.campaign.results import Results, Spread, at, steps_to
from benchmarks.rlvr.campaign.tables.cells import accuracy, table, together
from benchmarks.rlvr.campaign.variants import BEST, DECAYED, VANILLA, VARIANTS

_SHOWN = (100, 200, 300, 400)


def falling(results: Results) -> str:
    """Beside constant rates: vanilla and cycles at the best of these, and both from twice that down."""
    rows = []
    for task, best in BEST_RATES.items():
        ways = [(way, best) for way in ("vanilla", BEST, *DECAYED)]
        rivals = results.of(runs_of(["vanilla"], [task], [best]))
        if not (rivals and any(results.of(runs_of([way], [task], [best])) for way in DECAYED)):
            continue
        goal = Spread.of([at(record, VANILLA.steps) for _, record in rivals])
        for way, rate in (*ways, *((way, 2 * best) for way in ("vanilla", *DECAYED))):
            runs = runs_of([way], [task], [rate])
            made = [record for _, record in results.of(runs)]
            if made:
                greedy = Spread.of([record.rows[-1].accuracy.greedy for record in made])
                cells = (*(accuracy(results, runs, step) for step in _SHOWN), greedy)
                reached = together([steps_to(record, goal.mean) for record in made])
                rows.append((task, f"{rate:g}", VARIANTS[way].title, len(made), *cells, reached))
    columns = (
        "task", "rate", "run", "runs", *(f"at {step}" for step in _SHOWN), "greedy at 400",
        "steps to the best constant rate's 400",
    )  # fmt: skip
    return table(columns, rows)
