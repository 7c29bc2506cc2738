"""The geometry of a run: how its deltas lie, how straight and how steady the way is.

One pass over the files. Everything but the energy ratios comes from inner products of the drift (the
trajectory with its jumps taken out), and from the sums of its entries.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nextrapolate_numerics.backtest import Backtest, backtest
from nextrapolate_numerics.drift import Drift
from nextrapolate_numerics.errors import NothingMovedError, TooFewCheckpointsError
from nextrapolate_numerics.extraction import Extraction
from nextrapolate_numerics.gram import gram
from nextrapolate_numerics.methods import Autoregression
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.trajectory import ModuleFactors, Trajectory

_MINIMUM = 3
"""Checkpoints: any two lie on a line."""
_TIME_DIRECTIONS = 3


@dataclass(frozen=True)
class Linearity:
    """R^2 of a straight line in the step through a module's weights, in three definitions that disagree.

    On one and the same run they gave -5.4, 0.88 and 0.87: NExt's "more than half are not linear" (Fig. 3) and
    RLVR-Linearity's "R^2 about 0.9" (Fig. 1) can both be true of it.

    Attributes:
        held_out_by_coordinate: the line is fitted on the earlier two thirds of the checkpoints and judged on
            the others, each coordinate about its own mean there, coordinates weighted by their variance. None
            where fewer than two are left to judge on.
        held_out_pooled: the same, all coordinates about one mean.
        in_sample: fitted and judged on all checkpoints, each coordinate about its own mean.
    """

    held_out_by_coordinate: float | None
    held_out_pooled: float | None
    in_sample: float


@dataclass(frozen=True)
class ModuleGeometry:
    """One module that moved, at the c checkpoints.

    Attributes:
        energy_ratios: (c,) sigma_1 / sum sigma of the global delta (NExt, arXiv 2604.11446, Fig. 2); 0 where
            it is 0.
        gram: (c, c) float64 inner products of the drift.
        variance_explained: share of the deltas' squared norm that lies in the leading 1, 2, 3 directions in
            time, not centred (RELEX, arXiv 2605.21468).
        linearity: of its weights over the steps.
    """

    energy_ratios: tuple[float, ...]
    gram: Tensor
    variance_explained: tuple[float, ...]
    linearity: Linearity


@dataclass(frozen=True)
class Geometry:
    """A run's geometry.

    Attributes:
        steps: of the c checkpoints.
        modules: by name, those that moved.
        still: names of those that never did.
        evidence: the autoregression, shown the earlier two thirds of the run and asked for the rest; None
            where the series is too short.
    """

    steps: tuple[int, ...]
    modules: Mapping[str, ModuleGeometry]
    still: tuple[str, ...]
    evidence: Backtest | None


def inspect(
    trajectory: Trajectory, *, device: str | torch.device = "cpu", on_progress: Progress = silent
) -> Geometry:
    """Read every module once, and measure it.

    Raises:
        TooFewCheckpointsError: fewer than three.
        NonFiniteWeightsError: NaN or Inf in a factor.
        NothingMovedError: no module ever changed.
    """
    drift = trajectory.drift
    if drift.checkpoints < _MINIMUM:
        raise TooFewCheckpointsError("An inspection", have=drift.checkpoints, need=_MINIMUM)
    device = torch.device(device)
    modules: dict[str, ModuleGeometry] = {}
    grams: dict[str, Tensor] = {}
    still: list[str] = []
    for count, name in enumerate(trajectory.module_names, start=1):
        factors = trajectory.module(name).to(device)
        if all(factors.is_still(start, end) for start, end in drift.segments):
            still.append(name)
        else:
            grams[name] = gram(factors)
            modules[name] = _module_geometry(factors, grams[name], drift)
        on_progress(count / len(trajectory.module_names))
    if not modules:
        raise NothingMovedError
    steps = drift.steps[drift.starts_at_base :]
    return Geometry(steps, modules, tuple(still), _evidence(trajectory, grams, device))


def _module_geometry(factors: ModuleFactors, points: Tensor, drift: Drift) -> ModuleGeometry:
    first = int(drift.starts_at_base)
    coefficients = drift.coefficients[first:]
    inner = coefficients @ points @ coefficients.T
    ratios = [_energy_ratio(factors, drift, index) for index in range(first, len(drift.steps))]
    sums = coefficients @ _sums(factors)
    entries = factors.B.shape[1] * factors.A.shape[2]
    steps = torch.tensor(drift.steps[first:], dtype=torch.float64)
    return ModuleGeometry(
        tuple(ratios), inner, _variance_explained(inner), _linearity(steps, inner, sums, entries)
    )


def _energy_ratio(factors: ModuleFactors, drift: Drift, index: int) -> float:
    if index == 0:  # the origin is itself a checkpoint, from which the drift is measured
        return 0.0
    values = factors.path(drift.spans(0, index)).singular_values()
    total = float(values.sum())
    return float(values[0]) / total if total else 0.0


def _sums(factors: ModuleFactors) -> Tensor:
    """The sum of all entries of each point's delta, (p,) float64, as s (1^T B)(A 1)."""
    sums: Tensor = factors.scaling * (factors.B.double().sum(1) * factors.A.double().sum(2)).sum(1)
    return sums.cpu()


def _variance_explained(inner: Tensor) -> tuple[float, ...]:
    energies = torch.linalg.eigvalsh(inner).flip(0).clamp(min=0)
    shares = energies.cumsum(0) / energies.sum()
    return tuple(shares[:_TIME_DIRECTIONS].tolist())


def _linearity(steps: Tensor, inner: Tensor, sums: Tensor, entries: int) -> Linearity:
    every = torch.arange(len(steps))
    fitted = max(2, 2 * len(steps) // 3)
    early, late = every[:fitted], every[fitted:]
    in_sample = _r_squared(steps, inner, every, every, _scatter(inner, every))
    if len(late) < 2:
        return Linearity(None, None, in_sample)
    mean = sums[late].sum() / (len(late) * entries)
    pooled = inner[late, late].sum() - len(late) * entries * mean**2
    return Linearity(
        _r_squared(steps, inner, early, late, _scatter(inner, late)),
        _r_squared(steps, inner, early, late, pooled),
        in_sample,
    )


def _r_squared(steps: Tensor, inner: Tensor, fitted: Tensor, judged: Tensor, scatter: Tensor) -> float:
    """1 - |residuals|^2 / scatter at the judged checkpoints, of a line through the fitted ones.

    Each residual is a combination of checkpoints, so its norm comes from their inner products. Weights that
    do not scatter are on their line, whatever it is.
    """
    design = torch.stack([torch.ones_like(steps), steps - steps.mean()], dim=1)
    residuals = torch.zeros(len(judged), len(steps), dtype=torch.float64)
    residuals[torch.arange(len(judged)), judged] = 1.0
    residuals[:, fitted] -= design[judged] @ torch.linalg.pinv(design[fitted])
    missed = torch.einsum("ij,jk,ik->", residuals, inner, residuals)
    return float(1 - missed / scatter) if scatter > 0 else 1.0


def _scatter(inner: Tensor, at: Tensor) -> Tensor:
    """Sum over coordinates of the squared distances from each one's own mean over the checkpoints `at`."""
    block = inner[at][:, at]
    return block.diagonal().sum() - block.sum() / len(at)


def _evidence(trajectory: Trajectory, grams: Mapping[str, Tensor], device: torch.device) -> Backtest | None:
    drift = trajectory.drift
    horizon_steps = max(1, (drift.last_step - drift.steps[0]) // 3)
    nothing = dict.fromkeys(trajectory.module_names, 0.0)
    extraction = Extraction(
        trajectory, drift, horizon_steps, (), frozenset(grams), nothing, nothing, grams, {}, device
    )
    return backtest(Autoregression(), extraction, horizon_steps)
