"""The demo's result as a table to read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from demo.plans import Plan

Measured = Mapping[str, Any]
"""A `Measurement` as train.py wrote it."""


COLUMNS = ("run", "steps", "seconds", "waited", "sampled", "greedy")


def make_table(plans: Iterable[Plan], runs: Mapping[str, Sequence[Measured]]) -> Table:
    """Return the table: a section for every plan, a row for every measurement."""
    table = Table(
        title="Accuracy on the held-out prompts; seconds include the waiting for jumps",
        title_justify="left",
        box=box.SIMPLE,
    )
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "run" else "right", no_wrap=True)
    for plan in plans:
        table.add_section()
        for row in rows_of(plan.title, runs[plan.name]):
            table.add_row(*row)
    return table


def rows_of(title: str, measurements: Iterable[Measured]) -> Iterator[tuple[str, ...]]:
    """Yield a run's rows, one for every measurement; where a jump was made, before and after it."""
    for number, measured in enumerate(measurements):
        yield (
            "" if number else title,
            str(measured["step"]),
            f"{measured['seconds']:.0f}",
            _waited(measured),
            _change(measured, "sampled"),
            _change(measured, "greedy"),
        )


def _change(measured: Measured, kind: str) -> str:
    now = f"{measured['accuracy'][kind]:.3f}"
    return f"{measured['before'][kind]:.3f} → {now}" if measured["before"] else now


def _waited(measured: Measured) -> str:
    if measured["event"] == "no jump":
        return "no jump"
    return f"{measured['pause']:.1f}" if measured["pause"] is not None else ""
