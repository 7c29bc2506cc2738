"""The figures: accuracy against steps paid, and against alpha; Vega-Lite specifications drawn as SVG."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import vl_convert

from benchmarks.rlvr.campaign.plan import FASTER, RATE, SEEDS, TASKS, planned, runs_of
from benchmarks.rlvr.campaign.results import Results, at, curve
from benchmarks.rlvr.campaign.sweep import Swept
from benchmarks.rlvr.campaign.variants import BEST, BRANCHES_AT, OFTEN, SHORTER, VANILLA, VARIANTS

CHARTS = Path(__file__).parent / "charts"
IMAGES = Path(__file__).parents[3] / "docs" / "images"

Values = list[dict[str, Any]]


def draw(results: Results, swept: Sequence[Swept], folder: Path = IMAGES) -> list[Path]:
    """Draw all figures that have data, and return their files."""
    figures = {
        "rlvr-steps": ("accuracy", steps(results)),
        "rlvr-rates": ("accuracy", rates(results)),
        "rlvr-alpha": ("alpha", alphas(results, swept)),
    }
    drawn = []
    for name, (chart, values) in figures.items():
        if values:
            drawn.append(folder / f"{name}.svg")
            drawn[-1].write_text(svg(chart, values) + "\n")
    return drawn


def svg(chart: str, values: Values) -> str:
    """Draw a chart of charts/ with these values."""
    spec, config = (json.loads((CHARTS / f"{name}.json").read_text()) for name in (chart, "config"))
    drawn: str = vl_convert.vegalite_to_svg(
        spec | {"data": {"values": values}, "config": config}, allowed_base_urls=[]
    )
    return drawn


def steps(results: Results) -> Values:
    """Vanilla and cycles at the usual rate: a panel a task, a line a run, vanilla's end as a rule."""
    return [
        value
        for task in TASKS
        for variant in ("vanilla", BEST, OFTEN)
        for value in _lines(results, variant, task, RATE, task)
    ]


def rates(results: Results) -> Values:
    """The same at larger rates, and with the guard as it is by default: a panel a task and rate."""
    return [
        value
        for task in TASKS
        for rate in FASTER
        for variant in ("vanilla", BEST, OFTEN, SHORTER, "guarded")
        for value in _lines(results, variant, task, rate, f"{task}, rate {rate:g}")
    ]


def alphas(results: Results, swept: Iterable[Swept]) -> Values:
    """Accuracy after a jump from step 150 by alpha, a panel a task, the mean over seeds; 0 is no jump."""
    rows = list(swept)
    values = []
    for task in TASKS:
        names = {planned("vanilla", task, RATE, seed).name for seed in SEEDS}
        own = [row for row in rows if row.run in names]
        for method in dict.fromkeys(row.method for row in own):
            found = [row for row in own if row.method == method]
            before = [at(results.records[run], BRANCHES_AT) for run in {row.run for row in found}]
            points = {0.0: before}
            for row in found:
                points.setdefault(row.alpha, []).append(row.sampled)
            values += [
                {"panel": task, "method": method, "alpha": alpha, "sampled": mean(sampled)}
                for alpha, sampled in sorted(points.items())
            ]
    return values


def _lines(results: Results, variant: str, task: str, rate: float, panel: str) -> Values:
    runs = runs_of([variant], [task], [rate])
    goals = [at(record, VANILLA.steps) for _, record in results.of(runs)] if variant == "vanilla" else []
    return [
        {
            "panel": panel,
            "way": VARIANTS[variant].title,
            "seed": run.settings.seed,
            "order": order,
            "step": point.step,
            "sampled": point.accuracy,
            "goal": mean(goals) if goals and not order else None,
        }
        for run, record in results.of(runs)
        for order, point in enumerate(curve(record))
    ]
