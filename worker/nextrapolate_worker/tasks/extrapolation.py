"""Extrapolate: predict the coming update, and add it to the last checkpoint."""

from collections.abc import Callable
from dataclasses import asdict

from nextrapolate.schemas import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    BacktestReport,
    ChoiceReport,
    FileInfo,
    JobCreate,
    MethodScores,
    ModuleReport,
    Report,
    RunGeometry,
    Spectrum,
    Stage,
)
from nextrapolate_numerics import (
    Backtest,
    Extension,
    Extraction,
    GateThresholds,
    Geometry,
    Method,
    NoBacktestError,
    Update,
    backtest,
    extend,
    extract,
    extraction_cost,
)
from nextrapolate_worker.files import flush
from nextrapolate_worker.geometry import run_geometry
from nextrapolate_worker.loading import Loaded
from nextrapolate_worker.methods import numerics_method
from nextrapolate_worker.provenance import provenance
from nextrapolate_worker.publishing import publish
from nextrapolate_worker.scoring import backtest_report, rivals

SHARES = {
    Stage.RESOLVE: 0.02,
    Stage.LOAD: 0.03,
    Stage.EXTRACT: 0.20,
    Stage.FIT: 0.40,
    Stage.BACKTEST: 0.25,
    Stage.EXTEND: 0.08,
    Stage.PUBLISH: 0.02,
}

_SPECTRUM_VALUES = 256


def run(request: JobCreate, loaded: Loaded) -> dict[str, FileInfo]:
    """Stages 3 to 7: the adapter, its report as JSON and as a page, and a model card."""
    method, profile = request.method, loaded.profile
    algorithm = numerics_method(method)
    with profile.stage(Stage.EXTRACT) as progress:
        extraction = loaded.kept.of(
            "extraction", Extraction, lambda: _extracted(request, loaded, algorithm, progress)
        )
    with profile.stage(Stage.FIT) as progress:
        update = loaded.kept.of(
            "update", Update, lambda: algorithm.fit(extraction, method.horizon_steps, on_progress=progress)
        )
    with profile.stage(Stage.BACKTEST) as progress:
        outcome = _backtested(request, loaded, algorithm, extraction, progress)
        gate = GateThresholds(request.gate.min_energy_ratio, request.gate.min_backtest_cosine)
        tested = _tested(outcome, extraction, update, gate, method.alpha)
        others = rivals(method, extraction, gate)
    with profile.stage(Stage.EXTEND) as progress:
        extension = extend(
            extraction,
            update,
            alpha=method.alpha,
            gate=gate,
            backtest=outcome if isinstance(outcome, Backtest) else None,
            rank=request.output.rank,
            dtype=request.output.dtype,
            folder=loaded.folder,
            on_progress=progress,
        )
    with profile.stage(Stage.PUBLISH):
        artifacts = flush(loaded.folder, ADAPTER_MODEL, ADAPTER_CONFIG)
    geometry = run_geometry(Geometry.of(extraction))
    report = _report(request, loaded, update, tested, extension, others, geometry)
    return artifacts | publish(report, loaded.folder)


def _extracted(
    request: JobCreate, loaded: Loaded, algorithm: Method, progress: Callable[[float], None]
) -> Extraction:
    found = extract(
        loaded.trajectory,
        algorithm,
        request.method.horizon_steps,
        geometry=True,
        device=loaded.device,
        on_progress=progress,
    )
    loaded.profile.count(Stage.EXTRACT, extraction_cost(found))
    return found


def _backtested(
    request: JobCreate,
    loaded: Loaded,
    algorithm: Method,
    extraction: Extraction,
    progress: Callable[[float], None],
) -> Backtest | NoBacktestError:
    def scored() -> Backtest:
        return backtest(algorithm, extraction, request.method.horizon_steps, on_progress=progress)

    try:
        return loaded.kept.of("backtest", Backtest, scored)
    except NoBacktestError as reason:
        return reason


def _tested(
    outcome: Backtest | NoBacktestError,
    extraction: Extraction,
    update: Update,
    gate: GateThresholds,
    alpha: float,
) -> BacktestReport | NoBacktestError:
    if isinstance(outcome, NoBacktestError):
        return outcome
    if update.horizon_steps == 0:  # no cosine is held against what is no forecast
        return backtest_report(outcome, outcome.applied(alpha, gate.gated(extraction, None)))
    return backtest_report(outcome, gate.applied(extraction, outcome, alpha))


def _report(
    request: JobCreate,
    loaded: Loaded,
    update: Update,
    tested: BacktestReport | NoBacktestError,
    extension: Extension,
    others: list[MethodScores],
    geometry: RunGeometry,
) -> Report:
    """Assemble the report of a job whose stages have all ended; its verdict is written in at the end."""
    method = request.method
    gated = [module.name for module in extension.modules if module.gated]
    return Report(
        verdict="",
        method=method,
        target_step=loaded.trajectory.steps[-1] + update.horizon_steps,
        output=request.output,
        gate=request.gate,
        backtest=tested if isinstance(tested, BacktestReport) else None,
        unmeasured=tested.reason if isinstance(tested, NoBacktestError) else None,
        choice=ChoiceReport.model_validate(asdict(update.choice)) if update.choice else None,
        rivals=others,
        geometry=geometry,
        spectrum=_spectrum(extension),
        discarded_energy=extension.discarded_energy,
        update_discarded=extension.update_discarded,
        rounding=extension.rounding,
        gated_modules=gated,
        modules=[ModuleReport(**asdict(module)) for module in extension.modules],
        **provenance(loaded, extension.warnings),
    )


def _spectrum(extension: Extension) -> Spectrum | None:
    """Not longer than a picture can show."""
    spectrum = extension.spectrum
    if spectrum is None:
        return None
    wanted, kept = (values[:_SPECTRUM_VALUES].tolist() for values in (spectrum.wanted, spectrum.kept))
    return Spectrum(wanted=wanted, kept=kept)
