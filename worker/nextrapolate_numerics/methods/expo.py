"""ExPO: the last model, pushed on along the way it came from the base model (arXiv 2404.16792)."""

from dataclasses import dataclass
from typing import ClassVar

from nextrapolate_numerics.extraction import Evidence, Extraction
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Combination, Update


@dataclass(frozen=True)
class Expo:
    """W_c + alpha (W_c - W_0): the update is W_c - W_0, alpha 0.1 to 0.5 in the paper.

    W_c is the model as it is, its jumps included: ExPO knows two models, and no trajectory between them.
    W_0 is the base model, or the first checkpoint where a run did not start from the base.
    """

    needs: ClassVar[Evidence] = Evidence(gram=True)

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """Any checkpoints will do."""

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """The whole way from W_0; the horizon does not enter."""
        on_progress(1.0)
        return Combination(horizon_steps, (), dict.fromkeys(extraction.moved, extraction.drift.whole_way))
