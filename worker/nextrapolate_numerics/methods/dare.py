"""DARE: drop entries of the delta at random, and rescale those that stay (arXiv 2311.03099).

    W = W_0 + M * dW_c / (1 - p),    M 0 with probability p, else 1, for each entry

which leaves each entry's expectation as it was. Of an adapter only what the run's rank can hold of that is
left, and what it holds is in part the noise of the dropping: at p = 0.9 the noise is 3 times as long as dW_c.
"""

import hashlib
from collections.abc import Mapping
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

_ROUNDING = 1e-6  # of a delta's squared norm: below it float32 rows do not know what dropping changed


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
        """What is left of the delta in place of the delta; the horizon does not enter."""
        way = extraction.drift.whole_way
        wanted = Combination(0, (), dict.fromkeys(extraction.moved, way))
        left = fitted_selections(wanted, self._dropped, extraction, on_progress)
        left = with_loss_told(replace(left, energies=self._changes(left.energies, extraction)))
        away = Combination(0, (), dict.fromkeys(extraction.moved, -way))
        return Sum(0, left.warnings, (left, away))

    def _changes(self, energies: Mapping[str, float], extraction: Extraction) -> dict[str, float]:
        """|D - X|^2 by module, of the delta X and what is left of it, D, from |D|^2.

        Where D is not 0 it is X / (1 - p), so that <D, X> = (1 - p) |D|^2.
        """
        way, changes = extraction.drift.whole_way, {}
        for name, energy in energies.items():
            whole = float(way @ extraction.grams[name] @ way)
            change = whole - (1 - 2 * self.drop) * energy
            changes[name] = change if change > _ROUNDING * whole else 0.0
        return changes

    def _dropped(self, module: str, matrix: LowRank) -> Selection:
        """Drawn on the matrix's own device, from the seed and the module's name."""
        digest = hashlib.sha256(f"{self.seed} {module}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big", signed=True)

        def picking() -> Pick:
            generator = torch.Generator(matrix.B.device).manual_seed(seed)

            def pick(rows: Tensor) -> Tensor:
                kept = torch.empty_like(rows).bernoulli_(1 - self.drop, generator=generator)
                return rows.mul_(kept).div_(1 - self.drop)

            return pick

        return Selection(matrix, picking)
