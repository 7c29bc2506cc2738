"""The score of a model between checkpoints, predicted from theirs by a Gaussian process.

With x_i the checkpoints' deltas, y_i their scores, and z = sum_i w_i x_i:

    m(z) = mean y + k(z)^T (K + eta I)^-1 (y - mean y),    k(x, x') = exp(-|x - x'|^2 / 2 l^2)

the posterior mean under an RBF kernel (Rasmussen and Williams, Gaussian Processes for Machine Learning, Eq.
2.38, the prior mean being that of the scores). The length l is the median distance between checkpoints. eta,
the noise of a measured score over the variance of the scores, keeps a checkpoint that was lucky in its
evaluation from being the peak of the surface. Distances need inner products alone.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_NOISE = 0.1  # eta


@dataclass(frozen=True)
class ScoreSurface:
    """Scores over the space that the checkpoints span.

    Attributes:
        gram: (c, c) float64, inner products of the checkpoints' deltas.
        scores: (c) float64.
    """

    gram: Tensor
    scores: Tensor

    def at(self, weights: Tensor) -> float:
        """The predicted score of sum_i weights[i] x_i; weights (c) float64."""
        kernel = torch.exp(-self._squared_distances(weights.unsqueeze(0))[0] / (2 * self._squared_length))
        return float(self.scores.mean() + kernel @ self._coefficients)

    @cached_property
    def _coefficients(self) -> Tensor:
        kernel = torch.exp(-self._between / (2 * self._squared_length))
        noisy = kernel + _NOISE * torch.eye(len(kernel), dtype=kernel.dtype)
        solution: Tensor = torch.linalg.solve(noisy, self.scores - self.scores.mean())
        return solution

    @cached_property
    def _between(self) -> Tensor:
        return self._squared_distances(torch.eye(len(self.gram), dtype=self.gram.dtype))

    @cached_property
    def _squared_length(self) -> float:
        """The median squared distance of two different checkpoints; 1 where none differ."""
        pairs = self._between[*torch.triu_indices(len(self.gram), len(self.gram), offset=1)]
        apart = pairs[pairs > 0]
        return float(apart.median()) if len(apart) else 1.0

    def _squared_distances(self, weights: Tensor) -> Tensor:
        """From sum_i weights[k, i] x_i to each x_j, (k, c)."""
        norms = ((weights @ self.gram) * weights).sum(dim=1, keepdim=True)
        return (norms - 2 * weights @ self.gram + self.gram.diagonal()).clamp(min=0)
