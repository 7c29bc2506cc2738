"""Backtest: every method asked for what is known, and held against it."""

from collections.abc import Sequence

from nextrapolate.methods import default_methods, label
from nextrapolate.schemas import BacktestCreate, Comparison, FileInfo, MethodScores, Stage
from nextrapolate_numerics import compare
from nextrapolate_worker.loading import Loaded
from nextrapolate_worker.methods import numerics_method
from nextrapolate_worker.provenance import provenance
from nextrapolate_worker.publishing import publish
from nextrapolate_worker.scoring import by_error, method_scores

SHARES = {Stage.RESOLVE: 0.02, Stage.LOAD: 0.03, Stage.BACKTEST: 0.93, Stage.PUBLISH: 0.02}


def run(request: BacktestCreate, loaded: Loaded) -> dict[str, FileInfo]:
    """Stages 3, 5 and 7: the report. The reading is part of the backtest, which all methods share."""
    asked = request.methods or default_methods()
    methods = [method.model_copy(update={"horizon_steps": request.horizon_steps}) for method in asked]
    with loaded.profile.stage(Stage.BACKTEST) as progress:
        outcomes = compare(
            loaded.trajectory,
            [numerics_method(method) for method in methods],
            at_step=request.at,
            horizon_steps=request.horizon_steps,
            device=loaded.device,
            on_progress=progress,
        )
    with loaded.profile.stage(Stage.PUBLISH):
        scored = sorted(map(method_scores, methods, outcomes), key=by_error)
        report = Comparison(
            verdict=_verdict(scored, request),
            at=request.at,
            target_step=request.until,
            methods=scored,
            **provenance(loaded, loaded.trajectory.warnings),
        )
        return publish(report, loaded.folder)


def _verdict(scored: Sequence[MethodScores], request: BacktestCreate) -> str:
    best = scored[0]
    asked = f"asked at step {request.at} for step {request.until}"
    if best.total is None:
        return f"Nothing was measured: {asked}, no method could predict; each says why."
    numbers = f"relative error {best.total.relative_error:.2f}, where no jump scores 1"
    if not best.total.beats_no_jump:
        return f"No method beats no jump on this run, {asked} ({label(best.method)}: {numbers})."
    return f"{label(best.method)} predicts best, {asked}: {numbers} (cosine {best.total.cosine:.2f})."
