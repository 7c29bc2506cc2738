"""What goes into the cells of several tables."""

from collections.abc import Sequence
from statistics import mean, stdev

from benchmarks.rlvr.campaign.plan import Planned
from benchmarks.rlvr.campaign.results import Results, Spread, at
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
    """Their mean with its standard error, and how many got there."""
    reached = [paid for paid in steps if paid is not None]
    share = f"{len(reached)} of {len(steps)} runs"
    if not reached:
        return share
    error = f" ± {stdev(reached) / len(reached) ** 0.5:.0f}" if len(reached) > 1 else ""
    return f"{mean(reached):.0f}{error}, {share}"
