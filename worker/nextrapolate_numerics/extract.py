"""One pass over the files: from factors to what a method learns from."""

import torch
from torch import Tensor

from nextrapolate_numerics.drift import Drift
from nextrapolate_numerics.errors import NothingMovedError
from nextrapolate_numerics.extraction import Evidence, Extraction
from nextrapolate_numerics.gram import gram
from nextrapolate_numerics.methods.method import Method
from nextrapolate_numerics.module_geometry import ModuleGeometry, module_geometry
from nextrapolate_numerics.parts import ModuleParts, module_parts
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.trajectory import ModuleFactors, Trajectory
from nextrapolate_numerics.triples import ModuleTriples, module_triples


def extract(
    trajectory: Trajectory,
    method: Method,
    horizon_steps: int,
    *,
    geometry: bool = False,
    device: str | torch.device = "cpu",
    on_progress: Progress = silent,
) -> Extraction:
    """Read every module once, and keep what the method needs; with `geometry` measure the modules, too.

    Raises:
        TooFewCheckpointsError: less than the method needs; found before anything is read.
        NonFiniteWeightsError: NaN or Inf in a factor.
        NothingMovedError: no module ever changed.
    """
    method.check(trajectory.drift, horizon_steps)
    evidence = method.needs | Evidence.GEOMETRY if geometry else method.needs
    return gather(trajectory, evidence, horizon_steps, device=device, on_progress=on_progress)


def gather(
    trajectory: Trajectory,
    evidence: Evidence,
    horizon_steps: int,
    *,
    device: str | torch.device = "cpu",
    on_progress: Progress = silent,
) -> Extraction:
    """Read every module once, and keep the evidence that is wanted: what one or many methods learn from.

    Raises:
        NonFiniteWeightsError: NaN or Inf in a factor.
        NothingMovedError: no module ever changed.
    """
    if Evidence.GEOMETRY in evidence:
        evidence |= Evidence.GRAM
    drift = trajectory.drift
    device = torch.device(device)
    pairs = drift.pairs(horizon_steps)
    moved: set[str] = set()
    energy_ratios: dict[str, float] = {}
    drift_norms: dict[str, float] = {}
    grams: dict[str, Tensor] = {}
    triples: dict[str, ModuleTriples] = {}
    parts: dict[str, ModuleParts] = {}
    geometry: dict[str, ModuleGeometry] = {}
    for count, name in enumerate(trajectory.module_names, start=1):
        factors = trajectory.module(name).to(device)
        energy_ratios[name], drift_norms[name] = _last_global(factors, drift)
        if not all(factors.is_still(start, end) for start, end in drift.segments):
            moved.add(name)
            if Evidence.GRAM in evidence:
                grams[name] = gram(factors)
            if Evidence.TRIPLES in evidence:
                triples[name] = module_triples(factors, drift, pairs)
            if Evidence.PARTS in evidence:
                parts[name] = module_parts(factors, drift)
            if Evidence.GEOMETRY in evidence:
                geometry[name] = module_geometry(factors, grams[name], drift)
        on_progress(count / len(trajectory.module_names))
    if not moved:
        raise NothingMovedError
    return Extraction(
        trajectory,
        drift,
        horizon_steps,
        pairs,
        frozenset(moved),
        energy_ratios,
        drift_norms,
        grams,
        triples,
        parts,
        geometry,
        device,
    )


def _last_global(factors: ModuleFactors, drift: Drift) -> tuple[float, float]:
    """Energy ratio sigma_1 / sum sigma (NExt's definition, not squared) and norm of the last global delta."""
    values = factors.path(drift.spans(0, len(drift.steps) - 1)).singular_values()
    total = float(values.sum())
    if total == 0:
        return 0.0, 0.0
    return float(values[0]) / total, float(values.norm()) * factors.scaling
