"""DARE: drop entries of the delta at random, and rescale those that stay (arXiv 2311.03099).

    W = W_0 + M * dW_c / (1 - p),    M 0 with probability p, else 1, for each entry

which leaves each entry's expectation as it was, and changes the last checkpoint W_0 + dW_c by

    (M / (1 - p) - 1) * dW_c.

Of an adapter only what the run's rank can hold of W is left, and what it holds is in part the noise of the
dropping: at p = 0.9 the noise is 3 times as long as dW_c.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from nextrapolate_numerics.extraction import Evidence, Extraction
from nextrapolate_numerics.lowrank import LowRank
from nextrapolate_numerics.methods.fitted_selections import fitted_selections, with_loss_told
from nextrapolate_numerics.methods.selection import Pick, Selection
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Combination, Sum, Update


@dataclass(frozen=True)
class Dare:
    """The last model's own delta, its jumps included, with entries dropped: no forecast.

    Attributes:
        seed: of what is dropped.
        drop: p, from 0, which is the last checkpoint, to below 1. The paper, whose deltas keep their full
            rank, drops 0.9 and more.
    """

    seed: int = 0
    drop: float = 0.5

    needs: ClassVar[Evidence] = Evidence(gram=True, entries=True)

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """Any checkpoints will do."""

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """The nearest adapter of the run's rank to the last checkpoint with what dropping changes in it.

        The delta alone is not what to fit: measured from another adapter than the base model, its rank is
        higher than the run's. The horizon does not enter.
        """
        drift = extraction.drift
        own = torch.zeros_like(drift.whole_way)
        own[drift.last_point] = 1
        way, last = (Combination(0, (), dict.fromkeys(extraction.moved, at)) for at in (drift.whole_way, own))
        fits = with_loss_told(fitted_selections(way, self._changed, extraction, on_progress, onto=last))
        changed = [name for name, energy in fits.energies.items() if energy > 0]
        fits = replace(fits, factors={name: fits.factors[name] for name in changed})
        return Sum(0, fits.warnings, (fits, Combination(0, (), dict.fromkeys(changed, -own))))

    def _changed(self, module: str, matrix: LowRank) -> Selection:
        """What dropping changes; drawn on the matrix's own device, from the seed and the module's name."""
        digest = hashlib.sha256(f"{self.seed} {module}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big", signed=True)

        def picking() -> Pick:
            generator = torch.Generator(matrix.B.device).manual_seed(seed)

            def pick(rows: Tensor) -> Tensor:
                kept = torch.empty_like(rows).bernoulli_(1 - self.drop, generator=generator)
                return rows.mul_(kept.div_(1 - self.drop).sub_(1))

            return pick

        return Selection(matrix, picking)
