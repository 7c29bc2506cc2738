"""No update: W_c as it is, the baseline that every backtest is read against."""

from dataclasses import dataclass
from typing import ClassVar

from nextrapolate_numerics.extraction import Evidence, Extraction
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Combination, Update


@dataclass(frozen=True)
class NoUpdate:
    """W_c: no module gets an update, so that cosine is 0 and relative error 1, whatever training did."""

    needs: ClassVar[Evidence] = Evidence(gram=True)

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """Any checkpoints will do."""

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """Nothing, over no steps; the horizon does not enter."""
        on_progress(1.0)
        return Combination(0, (), {})
