"""One jump, by every method: within a run, and by itself for several alphas."""

from collections.abc import Sequence
from statistics import mean

from benchmarks.rlvr.campaign.compare import Pair, pairs
from benchmarks.rlvr.campaign.plan import TASKS, runs_of
from benchmarks.rlvr.campaign.results import Results, Spread, at
from benchmarks.rlvr.campaign.sweep import ALPHAS, Swept
from benchmarks.rlvr.campaign.tables.cells import table
from benchmarks.rlvr.campaign.variants import ABLATIONS, BRANCHES_AT, NOT_AHEAD, ONE_JUMP, VARIANTS


def one_jump(results: Results) -> str:
    """150 steps, one jump, 100 more steps: what is gained at the jump, and what is left of it at the end."""
    rows = []
    for variant in (*ONE_JUMP, *ABLATIONS, *NOT_AHEAD):
        found = pairs(results, runs_of([variant]))
        if not found:
            continue
        jumps = [pair.record.jumps[0] for pair in found]
        gains = [pair.record.jumps[0].accuracy.sampled - at(pair.rival, BRANCHES_AT) for pair in found]
        rows.append(
            (
                VARIANTS[variant].title,
                len(found),
                Spread.of(gains).signed,
                *(_more([pair for pair in found if pair.run.settings.task == task]) for task in TASKS),
                _more(found),
                f"{mean(pair.steps_of_rival - pair.record.settings.steps for pair in found):+.0f}",
                f"{mean(jump.update_ratio or 0.0 for jump in jumps):.2f}",
                f"{mean(jump.seconds for jump in jumps):.1f}",
            )
        )
    columns = (
        "jump", "runs", "gain at the jump", *(f"more than vanilla at 250: {task}" for task in TASKS),
        "all", "steps ahead of vanilla", "update, of the drift", "seconds waited",
    )  # fmt: skip
    return table(columns, rows)


def _more(found: Sequence[Pair]) -> str:
    return Spread.of([pair.differences[pair.record.settings.steps] for pair in found]).signed if found else ""


def alphas(results: Results, swept: Sequence[Swept]) -> str:
    """Gain of the adapter that a jump of 50 steps from step 150 gives, by method and alpha."""
    rows = []
    for task in TASKS:
        names = {run.name for run in runs_of(["vanilla"], [task])}
        own = [row for row in swept if row.run in names]
        for method in dict.fromkeys(row.method for row in own):
            gains: dict[float, list[float]] = {alpha: [] for alpha in ALPHAS}
            for row in (row for row in own if row.method == method):
                gains[row.alpha].append(row.sampled - at(results.records[row.run], BRANCHES_AT))
            best = max(gains, key=lambda alpha: mean(gains[alpha]))
            cells = (f"{mean(gain):+.3f}" for gain in gains.values())
            rows.append((task, method, len(gains[best]), *cells, f"{best:g}"))
    columns = ("task", "method", "runs", *(f"alpha {alpha:g}" for alpha in ALPHAS), "best alpha")
    return table(columns, rows)
