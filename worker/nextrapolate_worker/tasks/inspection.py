"""Inspect: the geometry of a run, and whether extrapolation should pay on it."""

from nextrapolate.schemas import AutoMethod, FileInfo, Inspection, Stage
from nextrapolate_numerics import Backtest, inspect
from nextrapolate_worker.geometry import run_geometry
from nextrapolate_worker.loading import Loaded
from nextrapolate_worker.provenance import provenance
from nextrapolate_worker.publishing import publish
from nextrapolate_worker.scoring import backtest_report

SHARES = {Stage.RESOLVE: 0.05, Stage.LOAD: 0.05, Stage.EXTRACT: 0.88, Stage.PUBLISH: 0.02}


def run(loaded: Loaded) -> dict[str, FileInfo]:
    """Stages 3 and 7: the report."""
    with loaded.profile.stage(Stage.EXTRACT) as progress:
        found = inspect(loaded.trajectory, device=loaded.device, on_progress=progress)
    with loaded.profile.stage(Stage.PUBLISH):
        evidence, unmeasured = None, None
        if isinstance(found.evidence, Backtest):
            evidence = backtest_report(found.evidence, found.evidence.total)
        else:
            unmeasured = found.evidence.why
        report = Inspection(
            verdict="",
            evidence=evidence,
            asked_method=AutoMethod().name,
            unmeasured=unmeasured,
            **dict(run_geometry(found.geometry)),
            **provenance(loaded, found.warnings),
        )
        return publish(report, loaded.folder)
