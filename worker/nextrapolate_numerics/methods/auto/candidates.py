"""What `auto` chooses from: kriging under many memories, straight lines, and no jump."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from nextrapolate_numerics.methods.auto.kriging import Memory, predictors
from nextrapolate_numerics.series import Drift

_MEMORIES = tuple(
    Memory(*values) for values in product((0.25, 0.5, 0.9), (0.0, 0.3, 1.0, 3.0), (0.5, 2.0, 8.0))
)
_LINE_PRIOR = 0.01  # a line takes noise for drift: it is right where it is exact, and rarely elsewhere


@dataclass(frozen=True)
class Candidates:
    """Ways to predict, at each step of a drift, the increments to come from those before it.

    Attributes:
        drift: with n - 1 increments.
        horizon_steps: from its last step to the one that is asked for, the n-th increment.
        windows: steps before the origin at which the straight lines start.
        covariances: (k, n, n) float64 of the kriging candidates.
    """

    drift: Drift
    horizon_steps: int
    windows: tuple[int, ...]
    covariances: Tensor

    @classmethod
    def of(cls, drift: Drift, horizon_steps: int) -> "Candidates":
        """Lines from 1, 2, 4, 8, .. checkpoints before the last one and from the first; every memory."""
        last = len(drift.steps) - 1
        back = [1 << power for power in range(last.bit_length()) if 1 << power < last]
        windows = tuple(drift.last_step - drift.steps[last - count] for count in (*back, last))
        ages = torch.tensor([*drift.ages, drift.ages[-1] + horizon_steps], dtype=torch.float64)
        return cls(
            drift, horizon_steps, windows, torch.stack([memory.covariance(ages) for memory in _MEMORIES])
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """(q) names for people, in the order of the predictions."""
        return (
            *(f"kriging, {memory}" for memory in _MEMORIES),
            *(f"weight extrapolation over {window} steps" for window in self.windows),
            "no jump",
        )

    @property
    def lines(self) -> range:
        """Which of the candidates are straight lines."""
        return range(len(_MEMORIES), len(_MEMORIES) + len(self.windows))

    @property
    def priors(self) -> Tensor:
        """(q,) float64, what each candidate weighs before anything is known."""
        priors = torch.ones(len(self.labels), dtype=torch.float64)
        priors[list(self.lines)] = _LINE_PRIOR
        return priors

    def predictions(self, known: int, ends: Sequence[int]) -> Tensor:
        """Weights on the first `known` increments that predict the sum of those after them.

        Args:
            known: index of the step that is asked, among the drift's.
            ends: indices of the later steps that are asked for; the one after the last is a horizon ahead.

        Returns:
            (e, q, known) float64: one for each end.
        """
        steps = [*self.drift.steps, self.drift.last_step + self.horizon_steps]
        ahead = torch.tensor([steps[end] - steps[known] for end in ends], dtype=torch.float64)
        straight = torch.zeros(len(self.windows) + 1, known, dtype=torch.float64)  # the last is no jump
        for row, window in zip(straight, self.windows, strict=False):
            begin = min(self.drift.nearest(steps[known] - window), known - 1)
            row[begin:] = 1 / (steps[known] - steps[begin])
        kriging = predictors(self.covariances, known, ends)
        return torch.cat([kriging, ahead[:, None, None] * straight], dim=1)
