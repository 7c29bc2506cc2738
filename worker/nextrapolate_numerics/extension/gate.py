"""The gate: modules whose evidence is poor keep the last checkpoint."""

from dataclasses import dataclass

from nextrapolate_numerics.backtest import Backtest
from nextrapolate_numerics.extraction import Extraction
from nextrapolate_numerics.scores import Scores


@dataclass(frozen=True)
class GateThresholds:
    """What a module needs for its update to be applied.

    Attributes:
        min_energy_ratio: of the last global delta, sigma_1 / sum sigma, in 0 .. 1.
        min_backtest_cosine: of the module's backtest, in -1 .. 1; without a backtest nothing is held against
            it, nor is it against an update that is no forecast. Above -1 a module that rested in it and would
            have been moved fails, too.
    """

    min_energy_ratio: float = 0.0
    min_backtest_cosine: float = 0.0

    def gated(self, extraction: Extraction, backtest: Backtest | None) -> dict[str, str]:
        """Why modules keep the last checkpoint, by name; those that get their update are not among them.

        Args:
            extraction: of the whole trajectory.
            backtest: the method's; None where there is none, or where the update is no forecast.
        """
        scores = backtest.modules if backtest else {}
        disturbed = backtest.disturbed if backtest and self.min_backtest_cosine > -1 else frozenset()
        reasons = {}
        for name in sorted(extraction.moved):
            ratio = extraction.energy_ratios[name]
            if ratio < self.min_energy_ratio:
                reasons[name] = f"energy ratio {ratio:.3f} is below {self.min_energy_ratio:g}"
            elif name in scores and (cosine := scores[name].cosine) < self.min_backtest_cosine:
                reasons[name] = f"backtest cosine {cosine:.3f} is below {self.min_backtest_cosine:g}"
            elif name in disturbed:
                reasons[name] = "it did not move in the backtest, but the method would have moved it"
        return reasons

    def applied(self, extraction: Extraction, backtest: Backtest, alpha: float) -> Scores:
        """The scores of alpha times a forecast, of which gated modules get nothing.

        What is gated by the cosines of this very backtest counts where the update scores worse without it,
        and not where it scores better: chosen with the answer known, what is left of noise beats no jump.
        """
        gates = self.gated(extraction, None), self.gated(extraction, backtest)
        return max((backtest.applied(alpha, gated) for gated in gates), key=lambda s: s.relative_error)
