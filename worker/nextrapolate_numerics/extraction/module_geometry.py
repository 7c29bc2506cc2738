"""The geometry of one module over a run: how its deltas lie, and how straight the way is.

Everything but the energy ratios comes from inner products of the drift (the trajectory with its jumps taken
out), and from the sums of its entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nextrapolate_numerics.series import Drift

_TIME_DIRECTIONS = 3
_ROUNDING = 1e-12  # of squared norms: what scatters by less is at rest


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


def module_geometry(
    points: Tensor, sums: Tensor, entries: int, energy_ratios: Sequence[float], drift: Drift
) -> ModuleGeometry:
    """Measure a module that moved.

    Args:
        points: (p, p) float64 inner products of its deltas at all points of the trajectory (gram.py).
        sums: (p,) float64, of all entries of each of them (gram.py).
        entries: how many each has, m n.
        energy_ratios: of the global delta at each step after the origin.
        drift: the steps that are visible.
    """
    first = int(drift.starts_at_base)
    coefficients = drift.coefficients[first:]
    inner = coefficients @ points @ coefficients.T
    steps = torch.tensor(drift.steps[first:], dtype=torch.float64)
    return ModuleGeometry(
        (0.0, *energy_ratios)[first:],  # at the origin, from which the drift is measured, there is no delta
        inner,
        _variance_explained(inner),
        _linearity(steps, inner, coefficients @ sums, entries),
    )


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
    squared = inner.diagonal()[judged].sum()
    return float(1 - missed / scatter) if scatter > _ROUNDING * squared else 1.0


def _scatter(inner: Tensor, at: Tensor) -> Tensor:
    """Sum over coordinates of the squared distances from each one's own mean over the checkpoints `at`."""
    block = inner[at][:, at]
    return block.diagonal().sum() - block.sum() / len(at)
