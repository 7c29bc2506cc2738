"""How well updates were predicted: what a choice between methods rests on."""

from pydantic import Field

from nextrapolate.schemas.common import Response
from nextrapolate.schemas.methods import AnsweredMethod

_AS_CLOSE = 0.005
"""Of relative errors: less than what two digits show."""
_BEST_OF_MANY = 0.96
"""On runs that wander at random, as the noise of real ones does, the best of five forecasts has a relative
error below .995 in one of four, and below this in 0 to 3 of a hundred."""


class Scores(Response):
    """A predicted update P compared with the true one T, over all modules that moved."""

    cosine: float = Field(description="sum <P,T> / sqrt(sum |P|^2 sum |T|^2)")
    relative_error: float = Field(description="sqrt(sum |P-T|^2 / sum |T|^2); no jump scores 1")
    size_ratio: float = Field(description="sqrt(sum |P|^2 / sum |T|^2)")

    @property
    def beats_no_jump(self) -> bool | None:
        """Whether the predicted update leads closer to the true weights than none at all; None: as close.

        A run that wanders at random cannot be predicted, and a method that hardly moves comes as close to
        it as no jump, on either side of 1 by chance.
        """
        if abs(self.relative_error - 1) < _AS_CLOSE:
            return None
        return self.relative_error < 1

    def beats_no_jump_as_best_of(self, methods: int) -> bool:
        """Whether it leads closer than none at all, and than the best of so many methods would by chance."""
        return self.beats_no_jump is True and (methods == 1 or self.relative_error < _BEST_OF_MANY)


class ModuleScores(Scores):
    """A predicted update compared with the true one, for one module."""

    name: str


class MethodScores(Response):
    """How one method did in a backtest; the scores are of its update as it would be applied.

    Alpha is included, and in an extrapolation's report its gate.
    """

    method: AnsweredMethod
    total: Scores | None = Field(
        description="over all modules that moved; null if the method could not predict"
    )
    reason: str | None = Field(
        default=None, description="why the method could not predict, and what it would need"
    )
    warnings: list[str] = Field(default_factory=list, description="warnings about its prediction")
    seconds: float = Field(
        description="time to fit and to score, without the reading of checkpoints that all methods share"
    )
    modules: list[ModuleScores] = Field(default_factory=list)


class BacktestReport(Response):
    """The method's score when it predicts, from an earlier checkpoint, one that is already known."""

    origin_step: int = Field(description="step of the last checkpoint that the method was shown")
    target_step: int = Field(description="step of the checkpoint that it predicted")
    total: Scores = Field(description="scores of the prediction itself, at alpha 1")
    applied: Scores = Field(
        description="scores of the update as it is applied: times alpha, and without the modules that the "
        "gate held back. If the gate used the cosines of this same backtest, those modules are left "
        "out only if that makes the score worse: dropping what is known to have done badly makes even "
        "noise look good"
    )
    seconds: float


class CandidateReport(Response):
    """One way to predict that `auto` tried, and the share that it got."""

    label: str
    relative_error: float | None = Field(
        description="over all its backtests, weighted; no jump scores 1; null if nothing was held out"
    )
    share: float = Field(description="share of the update, over all modules; all shares sum to 1")


class KindReport(Response):
    """What `auto` chose for the modules of one kind."""

    kind: str = Field(description="last part of the modules' names, such as q_proj")
    modules: int = Field(description="number of these modules that moved")
    relative_error: float | None = Field(
        description="relative error of what was chosen, in the same backtests; fitted to them, so never "
        "above 1"
    )
    amplitude: float = Field(
        description="length of the update, divided by the length of the mean of the candidates that jump"
    )
    leading: str = Field(description="label of the candidate with the largest share")


class ChoiceReport(Response):
    """Why `auto` predicts what it predicts."""

    why: str = Field(description="the reason, in words and numbers")
    backtests: int = Field(description="pairs of an earlier and a later checkpoint that were predicted")
    relative_error: float | None = Field(
        description="relative error of what was chosen, over all backtests, weighted; fitted to them, so "
        "never above 1"
    )
    candidates: list[CandidateReport] = Field(description="best first")
    kinds: list[KindReport]
