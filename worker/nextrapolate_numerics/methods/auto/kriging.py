"""Kriging in time: the best linear prediction of an increment from earlier ones.

The drift's velocity is taken for a random process that remembers: at steps s <= t since the drift's origin

    <v(s), v(t)> = (s / t)^f + m exp(-(t - s) / 10) + n delta(t - s)

The first part is what the run keeps heading for: it is forgotten as the run ages, by the same share whenever
the step doubles, so that no time scale has to be known. The second is the momentum of the optimizer (AdamW's
beta1 of 0.9 lasts for 10 steps), the third what every batch adds at random. With K_ij the integral of <v, v>
over the intervals i and j, and k_i that over i and the coming interval, increments x_1 .. x_c predict

    k^T K^{-1} x

(the conditional mean of a Gaussian process; Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006, Eq. 2.25). Where nothing is remembered that is 0, whatever the increments were.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MOMENTUM_STEPS = 10.0  # 1 / (1 - beta1) at AdamW's default
_SHORT = 1e-4  # of an interval over the run's age: here closed form and series are both right to 1e-10


@dataclass(frozen=True)
class Memory:
    """How velocity is remembered.

    Attributes:
        forgetting: f, in 0 <= f < 1; 0 is a heading that is never forgotten.
        momentum: m, variance of what the optimizer's momentum carries over that of the heading.
        noise: n > 0, in steps: variance of the noise of one step over that of the heading.
    """

    forgetting: float
    momentum: float
    noise: float

    def __str__(self) -> str:
        return f"forgetting {self.forgetting:g}, momentum {self.momentum:g}, noise {self.noise:g}"

    def covariance(self, steps: Tensor) -> Tensor:
        """K (n, n) of the increments between n + 1 steps, ascending from 0 or later, float64."""
        begin, end = steps[:-1], steps[1:]
        length = end - begin
        aged = torch.log1p(length / begin)  # log(end / begin), infinite from step 0
        rises, falls = 1 + self.forgetting, 1 - self.forgetting
        heading = torch.outer(_integral(rises, end, aged), _integral(falls, end, aged))
        share = 1 - torch.exp(-length / _MOMENTUM_STEPS)
        gaps = (begin.unsqueeze(0) - end.unsqueeze(1)).clamp(min=0)
        momentum = _MOMENTUM_STEPS**2 * torch.outer(share, share) * torch.exp(-gaps / _MOMENTUM_STEPS)
        within = 2 * _MOMENTUM_STEPS * (length - _MOMENTUM_STEPS * share)
        own = _own_heading(rises, end, aged) + self.momentum * within + self.noise * length
        later = (heading + self.momentum * momentum).triu(1)
        return later + later.mT + torch.diag(own)


def _integral(power: float, end: Tensor, aged: Tensor) -> Tensor:
    """Of t^(power - 1) up to `end`: (end^power - begin^power) / power, which cancels late in a run."""
    return end**power * -torch.expm1(-power * aged) / power


def _own_heading(rises: float, end: Tensor, aged: Tensor) -> Tensor:
    """The variance of an increment's heading: twice the integral of (s / t)^f over s < t within the interval.

    In closed form a difference of two, but a share `aged` of either; where that is small, its series.
    """
    falls = 2 - rises
    exact = (end**falls * _integral(rises, end, aged) - _integral(2.0, end, aged)) * 2 / falls
    slope, curvature = (2 + rises) / 3, (4 + 2 * rises + rises**2) / 12
    return torch.where(aged > _SHORT, exact, (end * aged) ** 2 * (1 - slope * aged + curvature * aged**2))


def predictors(covariances: Tensor, known: int, ends: Sequence[int]) -> Tensor:
    """Weights on the first `known` increments that predict the sum of those after them.

    Args:
        covariances: (q, n, n) of q memories.
        known: of the n increments.
        ends: how many increments there are when the sum ends, of each sum; `known` < end <= n.

    Returns:
        (e, q, known): one for each end.
    """
    sums = [end - known - 1 for end in ends]
    weights = [
        # One memory after the other: a system of hundreds of increments is large, and solved in a copy.
        torch.linalg.solve(of[:known, :known], of[:known, known:].cumsum(dim=-1)[:, sums])
        for of in covariances
    ]
    return torch.stack(weights).permute(2, 0, 1)
