"""The charts of the reports: what each shows, and how it is read."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from nextrapolate.methods import label
from nextrapolate.schemas import KindGeometry, MethodScores, RunGeometry, Scores, Spectrum, StepGeometry
from nextrapolate_worker.rendering.figures import Cell, Figure, Table, draw
from nextrapolate_worker.rendering.grid import Grid

Values = list[dict[str, Cell]]

_LOWEST_R_SQUARED, _BIN, _BINS = -1.0, 0.1, 20


def method_errors(scored: Sequence[tuple[MethodScores, Scores]], chosen: MethodScores, role: str) -> Figure:
    """Bars: the relative error of each method where the answer is known.

    Args:
        scored: methods and their scores, the smallest error first.
        chosen: the one of them to set apart.
        role: what it is, in words.
    """
    values: Values = [
        {"method": label(method.method), "error": total.relative_error, "chosen": method is chosen}
        for method, total in scored
    ]
    (best, least), (worst, most) = scored[0], scored[-1]
    alternative = (
        f"Bar chart of relative errors: {label(best.method)} {least.relative_error:.2f} is the smallest, "
        f"{label(worst.method)} {most.relative_error:.2f} the largest; no jump is 1."
    )
    return Figure(
        "errors",
        "Backtest: how far off each method was",
        "Every method predicts a checkpoint that is known. A bar that ends left of the dashed line came "
        f"closer than no jump. The coloured bar is {role}.",
        draw("errors", values, alternative),
        Table(
            ("method", "alpha", "relative error", "cosine", "size ratio", "seconds"),
            [
                (
                    label(method.method),
                    method.method.alpha,
                    total.relative_error,
                    total.cosine,
                    total.size_ratio,
                    method.seconds,
                )
                for method, total in scored
            ],
        ),
    )


def energy_ratios(steps: Sequence[int], kinds: Sequence[KindGeometry]) -> Figure:
    """Lines: sigma_1 / sum sigma of the global delta over the steps, one for each kind of module."""
    values: Values = [
        {"step": step, "kind": kind.kind, "ratio": ratio}
        for kind in kinds
        for step, ratio in zip(steps, kind.energy_ratio, strict=True)
    ]
    ends = [kind.energy_ratio[-1] for kind in kinds]
    alternative = (
        f"Line chart of the energy ratio over steps {steps[0]} to {steps[-1]} for {len(kinds)} kinds of "
        f"modules; at the end it lies between {min(ends):.2f} and {max(ends):.2f}."
    )
    return Figure(
        "energy",
        "Energy ratio by kind of module",
        "The first singular value of a delta as a share of the sum of all, averaged over the modules of a "
        "kind. Near 1, the change has rank one.",
        draw("energy", values, alternative),
        Table(("kind", *map(str, steps)), [(kind.kind, *kind.energy_ratio) for kind in kinds]),
    )


def drift(track: Sequence[StepGeometry], jumps: Sequence[int], reached: tuple[int, float] | None) -> Figure:
    """A line: how far the run has come from its base, and where the update leads."""
    first, last = track[0], track[-1]
    values: Values = [{"step": jump, "what": "jump"} for jump in jumps]
    values += [{"step": step.step, "norm": step.drift_norm, "what": "measured"} for step in track]
    rows: list[tuple[Cell, ...]] = [(s.step, s.drift_norm, s.speed, s.steadiness) for s in track]
    alternative = (
        f"Line chart of the norm of the drift: {first.drift_norm:.3g} at step {first.step}, "
        f"{last.drift_norm:.3g} at step {last.step}"
    )
    if reached is not None:
        target, norm = reached
        values += [
            {"step": last.step, "norm": last.drift_norm, "what": "predicted"},
            {"step": target, "norm": norm, "what": "predicted"},
        ]
        rows.append((f"{target} (predicted)", norm, None, None))
        alternative += f"; the update leads to {norm:.3g} at step {target}"
    return Figure(
        "drift",
        "Drift since the base model",
        "Norm of everything that training changed, over all modules, without the jumps."
        + (" Dotted lines mark jumps." if jumps else ""),
        draw("drift", values, f"{alternative}."),
        Table(("step", "norm of the drift", "speed (norm per step)", "steadiness (cosine)"), rows),
    )


def linearity(geometry: RunGeometry) -> Figure:
    """Histograms: R^2 of a straight line through each module's weights, in three definitions."""
    values: Values = []
    rows: list[tuple[str, int, float, float, float]] = []
    for name, found in geometry.linearity_by_definition.items():
        values += _histogram(name, found)
        rows.append((name, len(found), min(found), median(found), max(found)))
    medians = ", ".join(f"{name} {middle:.2f}" for name, _, _, middle, _ in rows)
    alternative = f"Histograms of R squared over {len(geometry.linearity)} modules; medians: {medians}."
    return Figure(
        "linearity",
        "How straight the path is: R² of a line, module by module",
        "Three definitions that give different values, so each is named. Below 0, a line is worse than "
        f"the mean; everything below {_LOWEST_R_SQUARED:g} is counted in the first bar.",
        draw("linearity", values, alternative),
        Table(("definition", "modules", "smallest", "median", "largest"), rows),
    )


def heatmap(name: str, title: str, note: str, modules: Mapping[str, float | None]) -> Figure:
    """Cells: a number of each module, kinds down and layers across; `name` is cosines or sizes."""
    grid = Grid.of(modules)
    values: Values = []
    numbers = []
    for kind, cells in grid.rows.items():
        for layer, value in zip(grid.columns, cells, strict=True):
            if value is not None:
                values.append({"kind": kind, "layer": layer, "value": value})
                numbers.append(value)
    alternative = (
        f"Heatmap of {len(grid.rows)} kinds of modules by {len(grid.columns)} layers: from "
        f"{min(numbers):.3g} to {max(numbers):.3g}."
    )
    table = Table(("kind", *grid.columns), [(kind, *cells) for kind, cells in grid.rows.items()])
    return Figure(name, title, note, draw(name, values, alternative), table)


def spectrum(found: Spectrum) -> Figure:
    """Lines: singular values of what was wanted, and of what the adapter's rank could keep."""
    values: Values = [
        {"index": index, "what": what, "sigma": sigma}
        for what, sigmas in (("wanted", found.wanted), ("kept by the refit", found.kept))
        for index, sigma in enumerate(sigmas, start=1)
        if sigma > 0
    ]
    kept = sum(sigma > 0 for sigma in found.kept)
    alternative = (
        f"Line chart of {len(found.wanted)} singular values on a logarithmic scale, from "
        f"{found.wanted[0]:.3g} down to {found.wanted[-1]:.3g}; the refit keeps {kept} of them."
    )
    rows = [(index, *pair) for index, pair in enumerate(zip(found.wanted, found.kept, strict=True), start=1)]
    return Figure(
        "spectrum",
        "Singular values before and after the refit",
        "Of the last checkpoint plus the update, as the root mean square over the modules. Whatever lies "
        "to the right of the second line's end does not fit into the adapter's rank.",
        draw("spectrum", values, alternative),
        Table(("index", "wanted", "kept by the refit"), rows),
    )


def _histogram(name: str, found: Sequence[float]) -> Values:
    counts = Counter(
        min(max(math.floor((value - _LOWEST_R_SQUARED) / _BIN), 0), _BINS - 1) for value in found
    )
    lows = [_LOWEST_R_SQUARED + index * _BIN for index in range(_BINS)]
    return [
        {"definition": name, "low": low, "high": low + _BIN, "modules": counts[index]}
        for index, low in enumerate(lows)
    ]
