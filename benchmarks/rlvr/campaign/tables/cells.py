"""What goes into the cells of several tables."""

from collections.abc import Sequence
from statistics import mean, stdev

from benchmarks.rlvr.campaign.plan import Planned
from benchmarks.rlvr.campaign.results import Results, Spread, at
from benchmarks.rlvr.campaign.variants import VANILLA
from benchmarks.written import markdown_table

NEVER = "never"
NOTHING = "None of these runs is finished."


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table, or that there is nothing for it yet."""
    return markdown_table(columns, rows) if rows else NOTHING


def accuracy(results: Results, runs: Sequence[Planned], step: int) -> str:
    """Mean and spread over the runs that have come that far."""
    reached = [at(record, step) for _, record in results.of(runs) if step <= record.settings.steps]
    return str(Spread.of(reached)) if reached else ""


def each(steps: Sequence[float | None]) -> str:
    """Steps of every run, in the order of their seeds."""
    return ", ".join(NEVER if paid is None else f"{paid:.0f}" for paid in steps)


def together(steps: Sequence[float | None]) -> str:
    """Their mean, and each; where some never got there, how many did."""
    reached = [paid for paid in steps if paid is not None]
    if not reached:
        return each(steps)
    share = "" if len(reached) == len(steps) else f"{len(reached)} of {len(steps)}: "
    several = f" ({each(steps)})" if len(steps) > 1 else ""
    return f"{share}{mean(reached):.0f}{several}"


def overall(steps: Sequence[float | None]) -> str:
    """Their mean with its standard error, and how many got there; the others count as `counted` does."""
    reached = sum(paid is not None for paid in steps)
    return f"{with_error(counted(steps))}, {reached} of {len(steps)} runs"


def counted(steps: Sequence[float | None]) -> list[float]:
    """Steps of every run; of one that never got there, all that vanilla has."""
    return [VANILLA.steps if paid is None else paid for paid in steps]


def with_error(values: Sequence[float]) -> str:
    """Their mean with its standard error."""
    error = f" ± {stdev(values) / len(values) ** 0.5:.0f}" if len(values) > 1 else ""
    return f"{mean(values):.0f}{error}"
