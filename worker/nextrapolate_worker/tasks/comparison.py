"""Backtest: every method asked for what is known, and held against it."""

from nextrapolate.methods import default_methods
from nextrapolate.schemas import BacktestCreate, Comparison, FileInfo, Stage
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
            verdict="",
            at=request.at,
            target_step=request.until,
            methods=scored,
            **provenance(loaded, loaded.trajectory.warnings),
        )
        return publish(report, loaded.folder)
