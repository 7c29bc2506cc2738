"""MAEC: extrapolate the key neurons only (arXiv 2410.07825).

The paper extracts an ability from the difference of two models, at the neurons that are key to it, and adds
that to a model. The definition implemented here, where weights are all there is to see: a neuron is a single
weight, and the key neurons of a module are the share of its weights that moved most over the window,

    W(t*) = W_c + K * (t* - t_c) / (t_c - t_b) (W_c - W_b),    K 1 for key neurons, else 0

on the drift, with W_b the model a window before.
"""

from dataclasses import dataclass
from typing import ClassVar

from nextrapolate_numerics.extraction import Evidence, Extraction
from nextrapolate_numerics.lowrank import LowRank
from nextrapolate_numerics.methods.fitted_selections import fitted_selections, with_loss_told
from nextrapolate_numerics.methods.selection import Selection, largest
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Combination, Update


@dataclass(frozen=True)
class Maec:
    """Weight extrapolation of the weights that moved most over the window, all others staying.

    Attributes:
        share: of each module's weights that are key neurons, above 0 and up to 1.
        window_steps: t_b is the step nearest to this many before the last; the base model counts as step 0.
    """

    share: float = 0.1
    window_steps: int = 50

    needs: ClassVar[Evidence] = Evidence(gram=True, entries=True)

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """Any two checkpoints will do."""

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """The line of the key neurons, fitted at the run's rank."""
        drift = extraction.drift
        begin = drift.window(self.window_steps)
        rows = drift.coefficients
        line = horizon_steps / (drift.last_step - drift.steps[begin]) * (rows[-1] - rows[begin])
        wanted = Combination(horizon_steps, (), dict.fromkeys(extraction.moved, line))
        return with_loss_told(fitted_selections(wanted, self._key_neurons, extraction, on_progress))

    def _key_neurons(self, module: str, matrix: LowRank) -> Selection:
        return largest(matrix, self.share)
