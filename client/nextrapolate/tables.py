"""Reports as a terminal shows them: tables, and small plots of one character a step."""

import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean, median

from rich.console import Console
from rich.table import Table

from nextrapolate.methods import label
from nextrapolate.reading import read
from nextrapolate.schemas import AnyReport, Comparison, Inspection

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.-:=+*#"
_MAX_BARS = 24
"""So that a table with a plot in it fits a terminal of 80 columns, however long the run."""

WIDE = 1000
"""Columns of what is no terminal, so that a file or a pipe gets each row whole, on one line."""


def show_comparison(comparison: Comparison) -> None:
    """Print a backtest: a row for each method, the smallest error first."""
    table = _table("method", "relative error", "cosine", "size ratio", "worst module", "seconds")
    notes = []
    for scored in comparison.methods:
        if scored.total is None:
            notes.append(f"{label(scored.method)} could not predict: {scored.reason}")
            continue
        worst = max((module.relative_error for module in scored.modules), default=0.0)
        numbers = (scored.total.relative_error, scored.total.cosine, scored.total.size_ratio, worst)
        table.add_row(label(scored.method), *(f"{number:.3f}" for number in numbers), f"{scored.seconds:.2f}")
        notes += (f"{label(scored.method)}: {warning}" for warning in scored.warnings)
    _print(comparison, table, notes)


def show_inspection(inspection: Inspection) -> None:
    """Print the geometry of a run: each kind of module over the steps, then how straight it is."""
    first, last = inspection.steps[0], inspection.steps[-1]
    bars = _bars()
    kinds = _table("kind", "modules", f"energy ratio, {first}-{last}", "at the end", "in 1, 2, 3 directions")
    kinds.columns[2].no_wrap = True
    for kind in inspection.kinds:
        shares = " ".join(f"{share:.3f}" for share in kind.variance_explained)
        row = (
            kind.kind,
            str(kind.modules),
            sparkline(kind.energy_ratio, bars),
            f"{kind.energy_ratio[-1]:.3f}",
            shares,
        )
        kinds.add_row(*row)
    track = _table("drift", f"{first}-{last}", "from", "to")
    track.columns[1].no_wrap = True
    for name, values in _track(inspection):
        track.add_row(name, sparkline(values, bars), f"{values[0]:.3g}", f"{values[-1]:.3g}")
    straight = _table("R^2 of a line", "< 0", "0-0.7", "0.7-0.9", "> 0.9", "median")
    for name, values in inspection.linearity_by_definition.items():
        straight.add_row(name, *_shares(values), f"{median(values):.2f}")
    _print(inspection, kinds, [], track, straight)


def sparkline(values: Sequence[float], bars: str = _BARS) -> str:
    """Draw values as bars from 0 to the largest, one each; of many values, one for the mean of a stretch."""
    drawn = _means(values, _MAX_BARS)
    top = max(drawn, default=0.0)
    if top <= 0:
        return bars[0] * len(drawn)
    return "".join(bars[min(int(max(value, 0.0) / top * len(bars)), len(bars) - 1)] for value in drawn)


def _means(values: Sequence[float], most: int) -> list[float]:
    """Take the means of as many stretches as may be, all about as long, in order."""
    count = min(len(values), most)
    bounds = [len(values) * number // count for number in range(count + 1)] if count else []
    return [fmean(values[start:end]) for start, end in pairwise(bounds)]


def _bars() -> str:
    """Choose bars that whoever reads stdout can take."""
    try:
        _BARS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return _PLAIN_BARS
    return _BARS


def _track(inspection: Inspection) -> Iterable[tuple[str, list[float]]]:
    track = inspection.track
    yield "norm since the base", [step.drift_norm for step in track]
    yield "speed, norm per step", [step.speed for step in track if step.speed is not None]
    if steadiness := [step.steadiness for step in track if step.steadiness is not None]:
        yield f"steadiness, cosine (mean {fmean(steadiness):.2f})", steadiness


def _shares(values: Sequence[float]) -> list[str]:
    """Share of modules whose R^2 lies in each of four ranges."""
    bounds = (float("-inf"), 0.0, 0.7, 0.9, float("inf"))
    counts = [sum(low <= value < high for value in values) for low, high in pairwise(bounds)]
    return [f"{count / len(values):.0%}" for count in counts]


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _print(report: AnyReport, table: Table, notes: Sequence[str], *more: Table) -> None:
    console = Console(soft_wrap=True, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDE
    reading = read(report)
    console.print(f"{reading.headline} {reading.verdict}", highlight=False)
    for part in (table, *more):
        if part.row_count:
            console.print()
            console.print(part)
    for note in (*notes, *report.warnings):
        console.print(f"note: {note}", highlight=False)
