"""Inspect: the geometry of a run, and whether extrapolation should pay on it."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from nextrapolate.schemas import (
    FileInfo,
    Inspection,
    KindGeometry,
    ModuleLinearity,
    Stage,
    StepGeometry,
)
from nextrapolate_numerics import Backtest, Geometry, ModuleGeometry, inspect
from nextrapolate_worker.files import flush
from nextrapolate_worker.loading import Loaded
from nextrapolate_worker.provenance import provenance

SHARES = {Stage.RESOLVE: 0.05, Stage.LOAD: 0.05, Stage.EXTRACT: 0.88, Stage.PUBLISH: 0.02}

_PAYS, _PAYS_A_LITTLE = 0.8, 1.0
"""Relative errors of the backtest below which extrapolation should pay, or may; no jump scores 1."""


def run(loaded: Loaded) -> dict[str, FileInfo]:
    """Stages 3 and 7: report.json."""
    with loaded.profile.stage(Stage.EXTRACT) as progress:
        found = inspect(loaded.trajectory, device=loaded.device, on_progress=progress)
    with loaded.profile.stage(Stage.PUBLISH):
        report = _report(found.geometry, found.evidence, loaded)
        (loaded.folder / "report.json").write_text(report.model_dump_json(indent=1), encoding="utf-8")
        return flush(loaded.folder, "report.json")


def _report(geometry: Geometry, evidence: Backtest | None, loaded: Loaded) -> Inspection:
    kinds: defaultdict[str, list[ModuleGeometry]] = defaultdict(list)
    for name, module in geometry.modules.items():
        kinds[name.rpartition(".")[2]].append(module)
    return Inspection(
        verdict=_verdict(evidence, len(geometry.steps)),
        still_modules=list(geometry.still),
        track=_track(geometry),
        kinds=[_kind(kind, kinds[kind]) for kind in sorted(kinds)],
        linearity=[
            ModuleLinearity(
                name=name,
                held_out_by_coordinate=module.linearity.held_out_by_coordinate,
                held_out_pooled=module.linearity.held_out_pooled,
                in_sample=module.linearity.in_sample,
            )
            for name, module in geometry.modules.items()
        ],
        **provenance(loaded, ()),
    )


def _track(geometry: Geometry) -> list[StepGeometry]:
    """What each checkpoint added, over all modules."""
    steps = torch.tensor(geometry.steps, dtype=torch.float64)
    inner = torch.stack([module.gram for module in geometry.modules.values()]).sum(dim=0)
    differences = torch.eye(len(steps), dtype=torch.float64).diff(dim=0)
    increments = differences @ inner @ differences.T
    lengths = increments.diagonal().clamp(min=0).sqrt()
    cosines = increments.diagonal(1) / (lengths[1:] * lengths[:-1])
    speeds = lengths / steps.diff()
    norms = inner.diagonal().clamp(min=0).sqrt()
    return [
        StepGeometry(
            step=step,
            drift_norm=float(norms[index]),
            speed=float(speeds[index - 1]) if index else None,
            steadiness=_finite(cosines[index - 2]) if index > 1 else None,
        )
        for index, step in enumerate(geometry.steps)
    ]


def _finite(value: torch.Tensor) -> float | None:
    return float(value) if value.isfinite() else None


def _kind(kind: str, modules: Sequence[ModuleGeometry]) -> KindGeometry:
    ratios = torch.tensor([module.energy_ratios for module in modules])
    norms = torch.stack([module.gram.diagonal() for module in modules]).sum(dim=0).clamp(min=0).sqrt()
    explained = torch.tensor([module.variance_explained for module in modules])
    return KindGeometry(
        kind=kind,
        modules=len(modules),
        energy_ratio=ratios.mean(dim=0).tolist(),
        drift_norm=norms.tolist(),
        variance_explained=explained.mean(dim=0).tolist(),
    )


def _verdict(evidence: Backtest | None, checkpoints: int) -> str:
    if evidence is None:
        return (
            f"Not measured: {checkpoints} checkpoints are too few to hold any out, so nothing says "
            "whether extrapolation pays on this run; collect more of them."
        )
    error = evidence.total.relative_error
    asked = (
        f"the autoregression, asked at step {evidence.origin_step} for step {evidence.target_step}, has "
        f"relative error {error:.2f}, where no jump scores 1 (cosine {evidence.total.cosine:.2f})"
    )
    if error < _PAYS:
        return f"Extrapolation should pay on this run: {asked}."
    if error < _PAYS_A_LITTLE:
        return f"Extrapolation may pay a little on this run; keep jumps short and evaluate them: {asked}."
    return f"Extrapolation should not pay on this run: {asked}."
