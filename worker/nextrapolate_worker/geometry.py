"""The geometry of a run, as reports show it."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from nextrapolate.schemas import KindGeometry, ModuleLinearity, RunGeometry, StepGeometry
from nextrapolate_numerics import Geometry, ModuleGeometry


def run_geometry(geometry: Geometry) -> RunGeometry:
    """Sum the modules up: by kind, and by what each checkpoint added."""
    kinds: defaultdict[str, list[ModuleGeometry]] = defaultdict(list)
    for name, module in geometry.modules.items():
        kinds[name.rpartition(".")[2]].append(module)
    return RunGeometry(
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
