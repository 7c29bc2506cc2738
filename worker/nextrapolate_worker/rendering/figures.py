"""A figure of a report: a chart, in words what it shows, and the numbers behind it.

Charts are Vega-Lite specifications in templates/charts/, drawn as SVG by vl-convert: text stays text, colours
are the page's own variables. What comes from a run is data to them: a tensor's name is never part of a
program.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import vl_convert
from markupsafe import Markup, escape

Cell = str | int | float | None

_CHARTS = resources.files("nextrapolate_worker") / "templates" / "charts"
_CONFIG = "config"
"""Lies among the charts, and says how all of them look."""
_LOCAL_ID = re.compile(r'(?<= id=")|(?<=url\(#)|(?<=href="#)')


@dataclass(frozen=True)
class Table:
    """Numbers, as a page shows them for copying.

    Attributes:
        columns: their names, units included; the first names the rows.
        rows: one cell for each column; None where there is no number.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]


@dataclass(frozen=True)
class Figure:
    """One chart.

    Attributes:
        name: unique on the page.
        title: what is shown, in a few words.
        note: how to read it, in a sentence or two.
        svg: the chart, ready to be set into a page.
        table: the numbers behind it.
    """

    name: str
    title: str
    note: str
    svg: Markup
    table: Table


def draw(name: str, values: Sequence[Mapping[str, Cell]], alternative: str) -> Markup:
    """Draw a chart.

    Args:
        name: of its specification; a page has it once.
        values: its data, a mapping of fields for each row.
        alternative: what it shows, in words, for those who do not see it.
    """
    spec = {**_specification(name), "data": {"values": values}, "config": _specification(_CONFIG)}
    svg: str = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    own = _LOCAL_ID.sub(f"{name}-", svg)  # clips and gradients: several charts share one page
    label = f'<svg role="img" aria-label="{escape(alternative)}"'
    return Markup(own.replace("<svg", label, 1))  # noqa: S704 - Vega escapes its data


def draw_each_once() -> None:
    """Draw every chart, without data and for nobody: its first time in a process takes much longer."""
    names = {chart.name.removesuffix(".json") for chart in _CHARTS.iterdir()}
    for name in names - {_CONFIG}:
        draw(name, [], "")


@cache
def _specification(name: str) -> dict[str, Any]:
    specification: dict[str, Any] = json.loads((_CHARTS / f"{name}.json").read_text("utf-8"))
    return specification
