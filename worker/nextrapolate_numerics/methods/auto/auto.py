"""Auto: candidates weighed, module by module, by how they predicted this run's own past.

At every earlier checkpoint i each candidate is asked for the drift to every later one e up to a horizon
ahead. With P what it predicted and T what came, its error on a module is

    E = sum w |P - T|^2 / sum w |T|^2,    w = (t_i / t_c)^10 ((t_e - t_i) / h)^0.5

with steps counted from the origin. Its share of the module's update is in proportion to prior E^-16, a
likelihood raised to a power: the best lead, those as good are averaged, and one that was exact takes all. No
jump is a candidate too, with E = 1. The mean is then stretched by the amplitude

    s = (r + r_all / 2) / (1 + 1 / 2),    r = sum w <P, T> / sum w |P|^2,    0 <= r_all <= 1,    0 <= s <= 2 r

r being the length that would have been best in the module's own backtests, and r_all that of all modules
together. Beyond 2 r the module would have done worse than no jump. Everything is inner products of
increments, and comes from the Gram matrices.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nextrapolate_numerics.extraction import Evidence, Extraction
from nextrapolate_numerics.methods.auto.candidates import Candidates
from nextrapolate_numerics.methods.auto.explanation import explained
from nextrapolate_numerics.methods.auto.mixture import Mixture
from nextrapolate_numerics.methods.auto.trials import trials
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Combination, Update

_TOGETHER = 1 << 20  # entries of the modules' Gram matrices that are worked on at a time


@dataclass(frozen=True)
class Auto:
    """Straight lines, kriging and no jump, weighed by backtests on the run itself."""

    needs: ClassVar[Evidence] = Evidence(gram=True)

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """Any checkpoints will do; where none can be held out, the candidates are averaged."""

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """Try the candidates at every earlier checkpoint, and apply them at the last one as they deserve."""
        drift = extraction.drift
        names = sorted(extraction.moved)
        increments = drift.coefficients.diff(dim=0)
        together = max(1, _TOGETHER // len(increments) ** 2)

        def grams() -> Iterator[Tensor]:
            for first in range(0, len(names), together):
                some = names[first : first + together]
                yield torch.stack([increments @ extraction.grams[name] @ increments.T for name in some])

        candidates = Candidates.of(drift, horizon_steps)
        tried = trials(candidates)
        on_progress(0.3)
        mixture = Mixture.of(candidates, tried, grams, len(names))
        on_progress(0.9)
        (predictions,) = candidates.predictions(len(increments), [len(drift.steps)])
        rows = mixture.amplitudes.unsqueeze(1) * (mixture.shares @ predictions) @ increments
        weights = {name: row for name, row in zip(names, rows, strict=True) if row.any()}
        choice = explained(names, candidates, tried, mixture)
        on_progress(1.0)
        return Combination(horizon_steps, () if weights else (choice.why,), weights, choice=choice)
