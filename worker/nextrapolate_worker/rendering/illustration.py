"""Which charts a report has: those for which it holds the numbers."""

from collections.abc import Iterable, Iterator, Mapping

from nextrapolate.methods import label
from nextrapolate.schemas import (
    AnyReport,
    Comparison,
    Inspection,
    MethodScores,
    Report,
    RunGeometry,
    Scores,
)
from nextrapolate_worker.rendering import charts
from nextrapolate_worker.rendering.figures import Figure
from nextrapolate_worker.scoring import by_error

_COSINE = (
    "1: the prediction points exactly where the module went; 0: in an unrelated direction; below 0: away "
    "from it."
)


def figures_of(report: AnyReport) -> Mapping[str, Figure]:
    """Draw a report's charts, by name."""
    match report:
        case Report():
            drawn = _extrapolation(report)
        case Comparison():
            drawn = _comparison(report)
        case Inspection():
            drawn = _geometry(report, report.jumps)
    return {figure.name: figure for figure in drawn}


def _extrapolation(report: Report) -> Iterator[Figure]:
    if report.backtest is not None:
        chosen = MethodScores(
            method=report.method, total=report.backtest.applied, seconds=report.backtest.seconds
        )
        scored = sorted([chosen, *report.rivals], key=by_error)
        yield charts.method_errors(_scored(scored), chosen, "the method of this job")
    yield from _geometry(report.geometry, report.jumps, _reached(report))
    cosines = {module.name: module.backtest_cosine for module in report.modules}
    if any(cosine is not None for cosine in cosines.values()):
        yield charts.heatmap("cosines", "Backtest cosine by module and layer", _COSINE, cosines)
    sizes = {module.name: module.update_norm for module in report.modules if module.update_norm > 0}
    if sizes:
        yield charts.heatmap(
            "sizes",
            "Size of the update by module and layer",
            "Frobenius norm of what is added to each module, including "
            f"alpha.{_left_out(report, len(sizes))}",
            sizes,
        )
    if report.spectrum is not None:
        yield charts.spectrum(report.spectrum)


def _comparison(report: Comparison) -> Iterator[Figure]:
    scored = _scored(report.methods)
    if not scored:
        return
    closest, _ = scored[0]
    best = next(iter(report.judged), closest)
    role = "the smallest error" if best is closest else "the smallest error that a backtest can judge"
    yield charts.method_errors(scored, best, role)
    cosines = {module.name: module.cosine for module in best.modules}
    if any(cosines.values()):
        yield charts.heatmap(
            "cosines", f"Cosine of {label(best.method)} by module and layer", _COSINE, cosines
        )


def _scored(methods: Iterable[MethodScores]) -> list[tuple[MethodScores, Scores]]:
    return [(method, method.total) for method in methods if method.total is not None]


def _geometry(
    geometry: RunGeometry, jumps: list[int], reached: tuple[int, float] | None = None
) -> Iterator[Figure]:
    yield charts.energy_ratios([step.step for step in geometry.track], geometry.kinds)
    yield charts.linearity(geometry)
    yield charts.drift(geometry.track, jumps, reached)


def _left_out(report: Report, shown: int) -> str:
    """Why cells are empty, where any are."""
    if shown == len(report.modules):
        return ""
    return " An empty cell is a module to which nothing is added, because it was gated or never trained."


def _reached(report: Report) -> tuple[int, float] | None:
    """Where the update leads, over all modules; None where it leads to no step ahead."""
    if not report.predicts_a_step:
        return None
    return report.target_step, sum(module.reached_norm**2 for module in report.modules) ** 0.5
