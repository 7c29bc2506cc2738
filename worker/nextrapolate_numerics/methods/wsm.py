"""WSM: the average of checkpoints that stands in for a decay of the learning rate (arXiv 2507.17634).

Had the learning rate decayed over the window, each increment would have counted by w_i, its share of the
constant rate. With X_0 .. X_k the checkpoints of the window and 1 >= w_1 >= .. >= w_k >= 0 the shares of the
increments between them, the decayed model is an average (the paper's theorem):

    W = X_0 + sum_i w_i (X_i - X_{i-1}) = sum_j c_j X_j,
    c_0 = 1 - w_1,    c_j = w_j - w_{j+1},    c_k = w_k
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from nextrapolate_numerics.extraction import Evidence, Extraction
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Combination, Update


@dataclass(frozen=True)
class Wsm:
    """The average that stands in for a linear decay to 0 at the last checkpoint.

    w_i is the mean rate over the steps of its increment, 1 - ((t_{i-1} + t_i) / 2 - t_0) / (t_k - t_0). That
    makes W the mean over time of the straight path through the checkpoints: on even steps, a soup in which
    the two ends weigh half. Of the drift, so that a jump is not half undone. It leads back, not ahead, and is
    no forecast.

    Attributes:
        window_steps: the decay starts at the step nearest to this many before the last; the base model counts
            as step 0.
    """

    window_steps: int = 50

    needs: ClassVar[Evidence] = Evidence(gram=True)

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """Any two checkpoints will do."""

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """The increments of the window at their decayed share; the horizon does not enter."""
        drift = extraction.drift
        begin = drift.window(self.window_steps)
        times = torch.tensor(drift.steps[begin:], dtype=torch.float64)
        passed = ((times[1:] + times[:-1]) / 2 - times[0]) / (times[-1] - times[0])
        increments = drift.coefficients[begin:].diff(dim=0)
        on_progress(1.0)
        return Combination(0, (), dict.fromkeys(extraction.moved, -passed @ increments))
