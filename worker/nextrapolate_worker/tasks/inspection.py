"""Inspect: the geometry of a run, and whether extrapolation should pay on it."""

from nextrapolate.reading import PAYS
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
        return publish(report.model_copy(update={"verdict": _verdict(report)}), loaded.folder)


def _verdict(report: Inspection) -> str:
    evidence = report.evidence
    if evidence is None:
        return f"Not measured: {report.unmeasured}. Nothing says whether extrapolation pays on this run."
    if broken := report.broken_after(evidence.origin_step):
        return (
            f"Not to be trusted: from step {broken.begin_step} to {broken.end_step} the adapter moved "
            f"{broken.times:.0f} times as far as this run does; keep to the checkpoints of one run, and "
            "inspect those."
        )
    error = evidence.total.relative_error
    asked = (
        f"{report.asked_method}, asked at step {evidence.origin_step} for step {evidence.target_step}, has "
        f"relative error {error:.2f}, where no jump scores 1 (cosine {evidence.total.cosine:.2f})"
    )
    if error < PAYS:
        return f"Extrapolation should pay on this run: {asked}."
    if evidence.total.beats_no_jump:
        return f"Extrapolation may pay a little on this run; keep jumps short and evaluate them: {asked}."
    if evidence.total.beats_no_jump is None:
        return f"Extrapolation should make no difference on this run: {asked}."
    return f"Extrapolation should not pay on this run: {asked}."
