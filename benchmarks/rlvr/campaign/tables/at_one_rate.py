"""Steps saved at the usual learning rate."""

from collections.abc import Iterator, Sequence
from statistics import mean, median

from benchmarks.rlvr.campaign.compare import Pair, gain_for_100_steps, pairs
from benchmarks.rlvr.campaign.plan import LARGER, TASKS, Planned, campaign, runs_of
from benchmarks.rlvr.campaign.results import Results, seconds_to
from benchmarks.rlvr.campaign.tables.cells import accuracy, each, table
from benchmarks.rlvr.campaign.variants import BEST, BY_OTHERS, OFTEN, VARIANTS

_SHOWN = (100, 150, 200, 250, 400)
_AUTO = (BEST, OFTEN)
_CYCLES = (*_AUTO, *BY_OTHERS)


def steps(results: Results) -> str:
    """Steps to what vanilla has after its last step: by task, and in the mean."""
    rows = [row for task in TASKS for row in _rows(results, task, _CYCLES)]
    jumping = {VARIANTS[variant].title: runs_of([variant]) for variant in _CYCLES}
    told = [_told(title, found) for title, runs in jumping.items() if (found := pairs(results, runs))]
    finished = f"Of {len(campaign())} planned runs, {len(results.of(campaign()))} are finished."
    sentences = (*told, _costs(results, jumping[VARIANTS[BEST].title]), finished)
    return f"{table(_COLUMNS, rows)}\n\n{' '.join(filter(None, sentences))}"


def larger(results: Results) -> str:
    """The same of the larger model."""
    rows = list(_rows(results, LARGER, _AUTO))
    return f"{table(_COLUMNS, rows)}\n\n{_costs(results, runs_of([BEST], [LARGER]))}".rstrip()


_COLUMNS = (
    "task", "run", *(f"at {step}" for step in _SHOWN), "steps to vanilla's 400", "to its greedy 400",
    "seconds to it", "gain for 100 steps",
)  # fmt: skip


def _rows(results: Results, task: str, cycles: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Vanilla on a task, and those cycles that are finished."""
    for variant in ("vanilla", *cycles):
        runs = runs_of([variant], [task])
        if found := pairs(results, runs):
            yield (
                task,
                VARIANTS[variant].title,
                *(accuracy(results, runs, step) for step in _SHOWN),
                *map(each, _sampled_and_greedy(found)),
                _seconds(found),
                f"{mean(gain_for_100_steps(pair.record) for pair in found):.3f}",
            )


def _seconds(found: Sequence[Pair]) -> str:
    reached = [seconds_to(pair.record, pair.steps) for pair in found if pair.steps is not None]
    return f"{mean(reached):.0f}" if reached else ""


def _sampled_and_greedy(found: Sequence[Pair]) -> tuple[list[float | None], list[float | None]]:
    return [pair.steps for pair in found], [pair.greedy.steps for pair in found]


def _told(title: str, found: Sequence[Pair]) -> str:
    """Steps to the rival's accuracy at its end, sampled and greedy, in a sentence."""
    sampled, greedy = map(_mean_steps, _sampled_and_greedy(found))
    return f"By {title}: {sampled}; greedy, {greedy}."


def _mean_steps(steps: Sequence[float | None]) -> str:
    reached = [paid for paid in steps if paid is not None]
    if not reached:
        return f"none of {len(steps)} runs reached it"
    share = f"{len(reached)} of {len(steps)} runs reached it"
    return f"{share}, after {mean(reached):.0f} steps in the mean ({min(reached):.0f} to {max(reached):.0f})"


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
