"""The gate: modules whose evidence is poor keep the last checkpoint."""

from dataclasses import dataclass

from nextrapolate_numerics.backtest import Backtest
from nextrapolate_numerics.extraction import Extraction
from nextrapolate_numerics.update import Update


@dataclass(frozen=True)
class GateThresholds:
    """What a module needs for its update to be applied.

    Attributes:
        min_energy_ratio: of the last global delta, sigma_1 / sum sigma, in 0 .. 1.
        min_backtest_cosine: of the module's backtest, in -1 .. 1; without a backtest nothing is held against
            it, nor is it against an update that is no forecast.
    """

    min_energy_ratio: float = 0.0
    min_backtest_cosine: float = 0.0

    def verdict(
        self, module: str, extraction: Extraction, update: Update, backtest: Backtest | None
    ) -> str | None:
        """Why the module keeps the last checkpoint; None where it gets its update."""
        ratio = extraction.energy_ratios[module]
        if ratio < self.min_energy_ratio:
            return f"energy ratio {ratio:.3f} is below {self.min_energy_ratio:g}"
        scores = backtest.modules.get(module) if backtest and update.horizon_steps else None
        if scores is not None and scores.cosine < self.min_backtest_cosine:
            return f"backtest cosine {scores.cosine:.3f} is below {self.min_backtest_cosine:g}"
        return None
