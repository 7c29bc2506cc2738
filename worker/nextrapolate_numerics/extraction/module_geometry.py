"""The geometry of modules over a run: how their deltas lie, and how straight the way is.

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

    On one and the same run they gave -3.7, 0.93 and 0.92 in the mean over modules: NExt's "more than half are
    not linear" (Fig. 3) and RLVR-Linearity's "R^2 about 0.9" (Fig. 1) can both be true of it.

    Attributes:
        held_out_by_coordinate: the line is fitted on the earlier two thirds of the checkpoints and judged on
            the others, each coordinate about its own mean there, coordinates weighted by their variance. The
            mean over coordinates alike lies far lower (-28 there), and inner products do not tell it. None
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
        squared_norms: (c,) float64, of the drift.
        variance_explained: share of the deltas' squared norm that lies in the leading 1, 2, 3 directions in
            time, not centred (RELEX, arXiv 2605.21468).
        linearity: of its weights over the steps.
    """

    energy_ratios: tuple[float, ...]
    squared_norms: Tensor
    variance_explained: tuple[float, ...]
    linearity: Linearity


def module_geometries(
    points: Tensor,
    sums: Tensor,
    entries: Sequence[int],
    energy_ratios: Sequence[Sequence[float]],
    drift: Drift,
) -> list[ModuleGeometry]:
    """Measure g modules that moved.

    Args:
        points: (g, p, p) float64 inner products of their deltas at all points of the trajectory (gram.py).
        sums: (g, p) float64, of all entries of each of them (gram.py).
        entries: how many a delta of each module has, m n.
        energy_ratios: of each one's global delta at each step after the origin.
        drift: the steps that are visible.
    """
    first = int(drift.starts_at_base)
    coefficients = drift.coefficients[first:]
    inner = coefficients @ points @ coefficients.T
    steps = torch.tensor(drift.steps[first:], dtype=torch.float64)
    # at the origin, from which the drift is measured, there is no delta
    ratios = [(0.0, *of_module)[first:] for of_module in energy_ratios]
    linear = _linearities(steps, inner, sums @ coefficients.T, torch.tensor(entries))
    norms = inner.diagonal(dim1=1, dim2=2).clone()
    return list(map(ModuleGeometry, ratios, norms, _variances_explained(inner), linear))


def _variances_explained(inner: Tensor) -> list[tuple[float, ...]]:
    energies = torch.linalg.eigvalsh(inner).flip(-1).clamp(min=0)
    total = energies.sum(-1, keepdim=True)  # 0 where factors moved, and their product did not
    shares = torch.where(total > 0, energies.cumsum(-1) / total, 0.0)
    return [tuple(of_module) for of_module in shares[:, :_TIME_DIRECTIONS].tolist()]


def _linearities(steps: Tensor, inner: Tensor, sums: Tensor, entries: Tensor) -> list[Linearity]:
    every = torch.arange(len(steps))
    fitted = max(2, 2 * len(steps) // 3)
    early, late = every[:fitted], every[fitted:]
    in_sample = _r_squared(steps, inner, every, every, _scatter(inner, every))
    if len(late) < 2:
        return [Linearity(None, None, found) for found in in_sample]
    mean = sums[:, late].sum(-1) / (len(late) * entries)
    pooled = inner[:, late, late].sum(-1) - len(late) * entries * mean**2
    by_coordinate = _r_squared(steps, inner, early, late, _scatter(inner, late))
    return list(map(Linearity, by_coordinate, _r_squared(steps, inner, early, late, pooled), in_sample))


def _r_squared(steps: Tensor, inner: Tensor, fitted: Tensor, judged: Tensor, scatter: Tensor) -> list[float]:
    """1 - |residuals|^2 / scatter (g,) at the judged checkpoints, of a line through the fitted ones.

    Each residual is a combination of checkpoints, so its norm comes from their inner products. Weights that
    do not scatter are on their line, whatever it is.
    """
    design = torch.stack([torch.ones_like(steps), steps - steps.mean()], dim=1)
    residuals = torch.zeros(len(judged), len(steps), dtype=torch.float64)
    residuals[torch.arange(len(judged)), judged] = 1.0
    residuals[:, fitted] -= design[judged] @ torch.linalg.pinv(design[fitted])
    missed = ((residuals @ inner) * residuals).sum(dim=(1, 2))
    squared = inner[:, judged, judged].sum(-1)
    found: list[float] = torch.where(scatter > _ROUNDING * squared, 1 - missed / scatter, 1.0).tolist()
    return found


def _scatter(inner: Tensor, at: Tensor) -> Tensor:
    """Sum over coordinates of squared distances from each one's own mean over the checkpoints `at`, (g,)."""
    block = inner[:, at][:, :, at]
    return block.diagonal(dim1=1, dim2=2).sum(-1) - block.sum(dim=(1, 2)) / len(at)
