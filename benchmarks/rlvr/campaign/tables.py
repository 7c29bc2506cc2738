"""The tables, in Markdown. What is not finished yet is left out; what was not reached says so."""

from collections.abc import Callable, Sequence
from statistics import mean, median

from benchmarks.rlvr.campaign.compare import Pair, gain_for_100_steps, pairs
from benchmarks.rlvr.campaign.plan import FASTER, RATE, SEEDS, TASKS, TUNING_SEED, Planned, runs_of
from benchmarks.rlvr.campaign.results import Results, Spread, at
from benchmarks.rlvr.campaign.sweep import ALPHAS, Swept
from benchmarks.rlvr.campaign.variants import (
    ALGORITHMS,
    BEST,
    BRANCHES_AT,
    CYCLES,
    GUARDED,
    ONE_JUMP,
    VARIANTS,
)
from benchmarks.written import markdown_table

NEVER = "never"
NOTHING = "None of these runs is finished."


def steps(results: Results) -> str:
    """Steps to what vanilla has after its last step, at the usual rate: by task, and in the mean."""
    rows = []
    for task in TASKS:
        for variant in ("vanilla", BEST):
            runs = runs_of([variant], [task])
            if not results.of(runs):
                continue
            accuracies = [_accuracy(results, runs, step) for step in (100, 150, 200, 250, 400)]
            paid = [_steps(pair) for pair in pairs(results, runs)] if variant == BEST else []
            gain = f"{mean(gain_for_100_steps(record) for _, record in results.of(runs)):.3f}"
            rows.append((task, VARIANTS[variant].title, *accuracies, ", ".join(paid), gain))
    columns = (
        "task", "run", *(f"at {step}" for step in (100, 150, 200, 250, 400)), "steps to vanilla's 400",
        "gain for 100 steps",
    )  # fmt: skip
    jumping = runs_of([BEST])
    sentences = f"{_mean_steps(pairs(results, jumping))} {_costs(results, jumping)}"
    return f"{_table(columns, rows)}\n\n{sentences.strip()}"


def rates(results: Results) -> str:
    """The same at larger constant learning rates."""
    rows = []
    for task in TASKS:
        for rate in (RATE, *FASTER):
            vanilla, jumping = (runs_of([variant], [task], [rate]) for variant in ("vanilla", BEST))
            if not results.of(vanilla):
                continue
            found = pairs(results, jumping)
            rows.append(
                (
                    task,
                    f"{rate:g}",
                    *(_accuracy(results, vanilla, step) for step in (200, 300, 400)),
                    *(_accuracy(results, jumping, step) for step in (200, 300)),
                    ", ".join(map(_steps, found)),
                    f"{min(pair.worst for pair in found):+.3f}" if found else "",
                )
            )
    columns = (
        "task", "rate", "vanilla at 200", "at 300", "at 400", "cycles at 200", "at 300",
        "steps to vanilla's 400", "worst difference at equal steps",
    )  # fmt: skip
    return _table(columns, rows)


def guard(results: Results) -> str:
    """With the guard and without, beside vanilla at equal steps."""
    rows = []
    for rate in (RATE, *FASTER):
        for task in TASKS:
            cells = [_against_vanilla(results, runs_of([way], [task], [rate])) for way in (BEST, *GUARDED)]
            if any(any(cell) for cell in cells[1:]):
                spread = _noise(results, runs_of(["vanilla"], [task], [rate]))
                rows.append((task, f"{rate:g}", *(text for cell in cells for text in cell), spread))
    ways = ("cycles", *GUARDED)
    columns = ("task", "rate", *(f"{way}: {what}" for way in ways for what in ("worst", "at the end")))
    return _table((*columns, "vanilla's spread over seeds"), rows)


def one_jump(results: Results) -> str:
    """150 steps, one jump, 100 more steps, by method."""
    rows = []
    for variant in ONE_JUMP:
        found = pairs(results, runs_of([variant], ["addition"]))
        if not found:
            continue
        jumps = [pair.record.jumps[0] for pair in found]
        rows.append(
            (
                VARIANTS[variant].title,
                str(Spread.of([at(pair.rival, BRANCHES_AT) for pair in found])),
                str(Spread.of([jump.accuracy.sampled for jump in jumps])),
                f"{mean(jump.update_ratio or 0.0 for jump in jumps):.2f}",
                str(Spread.of([at(pair.record, 250) for pair in found])),
                Spread.of([pair.differences[250] for pair in found]).signed,
                f"{mean(pair.steps_of_rival for pair in found):.0f}",
                f"{mean(jump.seconds for jump in jumps):.1f}",
            )
        )
    columns = (
        "jump", "at 150", "after the jump", "update, of the drift", "at 250", "more than vanilla",
        "as vanilla after", "seconds waited",
    )  # fmt: skip
    return _table(columns, rows)


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
            rows.append((task, method, *cells, f"{best:g}"))
    columns = ("task", "method", *(f"alpha {alpha:g}" for alpha in ALPHAS), "best alpha")
    return _table(columns, rows)


def cycles(results: Results) -> str:
    """Cycles of several lengths, methods and strengths, on the seed that they were chosen by."""
    rows = []
    for variant in ("vanilla", *CYCLES):
        for task in TASKS:
            runs = runs_of([variant], [task], seeds=[TUNING_SEED])
            for pair in pairs(results, runs):
                accuracies = [_accuracy(results, runs, step) for step in (100, 160, 200, 250)]
                gain = f"{gain_for_100_steps(pair.record):.3f}"
                rows.append((VARIANTS[variant].title, task, *accuracies, _steps(pair), gain))
    columns = (
        "cycle", "task", "at 100", "at 160", "at 200", "at 250", "steps to vanilla's 400",
        "gain for 100 steps",
    )  # fmt: skip
    return _table(columns, rows)


def algorithms(results: Results) -> str:
    """RLOO, and REINFORCE++ as far as TRL has it."""
    rows = []
    for variant in ALGORITHMS:
        runs = runs_of([variant], ["addition"], seeds=SEEDS[:1])
        if results.of(runs):
            accuracies = [_accuracy(results, runs, step) for step in (100, 200, 250, 400)]
            reached = [_steps(pair) for pair in pairs(results, runs) if VARIANTS[variant].jumps]
            rows.append((VARIANTS[variant].title, *accuracies, ", ".join(reached)))
    columns = ("run", "at 100", "at 200", "at 250", "at 400", "steps to its own vanilla's 400")
    return _table(columns, rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return markdown_table(columns, rows) if rows else NOTHING


def _accuracy(results: Results, runs: Sequence[Planned], step: int) -> str:
    """The mean sampled accuracy when that many steps were paid, and its spread over seeds."""
    found = [at(record, step) for run, record in results.of(runs) if step <= run.settings.steps]
    return str(Spread.of(found)) if found else ""


def _steps(pair: Pair) -> str:
    return NEVER if pair.steps is None else f"{pair.steps:.0f}"


def _mean_steps(found: Sequence[Pair]) -> str:
    reached = [pair.steps for pair in found if pair.steps is not None]
    if not reached:
        return ""
    text = f"{len(reached)} of {len(found)} runs reached it, after {mean(reached):.0f} steps in the mean"
    return f"{text} ({min(reached):.0f} to {max(reached):.0f})."


def _against_vanilla(results: Results, runs: Sequence[Planned]) -> tuple[str, str]:
    """The worst difference from vanilla at equal steps, over all steps and seeds; and the last one's mean."""
    found = pairs(results, runs)
    if not found:
        return "", ""
    last = [list(pair.differences.values())[-1] for pair in found]
    return f"{min(pair.worst for pair in found):+.3f}", f"{mean(last):+.3f}"


def _noise(results: Results, runs: Sequence[Planned]) -> str:
    """Standard deviation of vanilla's accuracy over seeds, in the mean over steps."""
    found = [record for _, record in results.of(runs)]
    if len(found) < 2:
        return ""
    return f"{mean(Spread.of([at(run, row.step) for run in found]).deviation for row in found[0].rows):.3f}"


def _costs(results: Results, runs: Sequence[Planned]) -> str:
    """What a step took, and a jump, in sentences."""
    made = [record for _, record in results.of(runs)]
    steps = [record.rows[-1].seconds / record.settings.steps for record in made]
    waits = [jump.seconds for record in made for jump in record.jumps]
    if not waits:
        return ""
    return (
        f"In the median a step of training took {median(steps):.2f} s of a core, a jump "
        f"{median(waits):.1f} s beside whatever else the machine did."
    )


SECTIONS: dict[str, Callable[[Results], str]] = {
    "steps": steps,
    "rates": rates,
    "guard": guard,
    "one-jump": one_jump,
    "cycles": cycles,
    "algorithms": algorithms,
}
"""Each writes a section of docs/benchmarks.md of its own."""
