"""Trajectory autoregression: ridge regression of coming increments on past ones, from Gram matrices.

With F_w(i) = (drift_i - drift_{i-w}) / w, the mean speed over the last w steps, the update over h steps is

    h sum_w a_w F_w(c)

and a, one for all modules, is the ridge solution over pairs (i, i + h') of this very run, for all horizons h'
<= h at once: drift_{i+h'} - drift_i against h' F_w(i). A pair's weight falls with the age of i and rises with
h'.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nextrapolate_numerics.extraction import Evidence, Extraction, summed
from nextrapolate_numerics.methods.tail import coming, origins, speeds, window_lengths
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Combination, Update

_ROUNDING = 1e-12  # of the largest squared length: what inner products in float64 do not tell from 0


@dataclass(frozen=True)
class Autoregression:
    """Ridge regression over windows and horizons.

    Attributes:
        ridge: penalty, as a share of the mean diagonal of the normal matrix.
        decay: weight of a training pair for each 10 steps of its age.
        max_window_steps: longest window of past steps.
    """

    ridge: float = 0.1
    decay: float = 0.5
    max_window_steps: int = 150

    needs: ClassVar[Evidence] = Evidence(gram=True)

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """One increment that follows another one is the least to learn from."""
        drift.check_length(3, "autoregression")

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """Regress on all pairs that are visible, and apply the coefficients at the last visible step."""
        drift = extraction.drift
        self.check(drift, horizon_steps)
        inner = drift.coefficients @ summed(extraction.grams) @ drift.coefficients.T
        windows = self._windows(drift)
        normal = torch.zeros(len(windows), len(windows), dtype=torch.float64)
        response = torch.zeros(len(windows), dtype=torch.float64)
        lengths, largest = torch.tensor(windows, dtype=torch.float64), float(inner.diagonal().max())
        for origin in origins(drift):
            past = speeds(drift, origin, windows)
            projected = past @ inner
            square = projected @ past.T
            if float(square.diagonal() @ lengths**2) <= _ROUNDING * largest:
                continue  # nothing moved before it: what is left says nothing, and would outweigh older pairs
            for end, steps, weight in coming(drift, origin, horizon_steps, self.decay):
                normal += weight * steps**2 * square
                response += weight * steps * (projected[:, end] - projected[:, origin])
            on_progress(origin / len(drift.segments))
        coefficients = _ridge_solution(normal, response, self.ridge)
        update = horizon_steps * (coefficients @ speeds(drift, len(drift.steps) - 1, windows))
        on_progress(1.0)
        return Combination(horizon_steps, (), dict.fromkeys(extraction.moved, update @ drift.coefficients))

    def _windows(self, drift: Drift) -> list[int]:
        """Steps from the last checkpoint back to earlier ones, up to the longest window and one at least."""
        lengths = window_lengths(drift)
        return [length for length in lengths if length <= self.max_window_steps] or lengths[:1]


def _ridge_solution(normal: Tensor, response: Tensor, ridge: float) -> Tensor:
    penalty = ridge * normal.diagonal().mean()
    if penalty == 0:
        return torch.zeros_like(response)
    solution: Tensor = torch.linalg.solve(
        normal + penalty * torch.eye(len(normal), dtype=normal.dtype), response
    )
    return solution
