"""From the numerics' backtests to the scores that reports show."""

from contextlib import suppress
from dataclasses import asdict

from nextrapolate.methods import default_methods
from nextrapolate.schemas import (
    BacktestReport,
    Method,
    MethodParameters,
    MethodScores,
    ModuleScores,
    Scores,
)
from nextrapolate_numerics import (
    Backtest,
    Evidence,
    Extraction,
    GateThresholds,
    NoBacktestError,
    NumericsError,
    backtest,
)
from nextrapolate_numerics import Scores as NumericsScores
from nextrapolate_worker.methods import numerics_method

_AT_HAND = Evidence(gram=True)
"""What the extraction of any job holds: methods that need no more take moments."""


def backtest_report(backtest: Backtest, applied: NumericsScores) -> BacktestReport:
    """A backtest, as the prediction is and as it is applied."""
    return BacktestReport(
        origin_step=backtest.origin_step,
        target_step=backtest.target_step,
        total=Scores(**asdict(backtest.total)),
        applied=Scores(**asdict(applied)),
        seconds=backtest.seconds,
    )


def method_scores(method: Method, outcome: Backtest | NumericsError) -> MethodScores:
    """How a method did, its update scaled by its alpha; or why it could not predict."""
    if isinstance(outcome, NumericsError):
        return MethodScores(method=method, total=None, reason=str(outcome), seconds=0.0)
    return MethodScores(
        method=method,
        total=Scores(**asdict(outcome.applied(method.alpha))),
        warnings=list(outcome.warnings),
        seconds=outcome.seconds,
        modules=[
            ModuleScores(name=name, **asdict(scores.scaled(method.alpha)))
            for name, scores in outcome.modules.items()
        ],
    )


def rivals(chosen: MethodParameters, extraction: Extraction, gate: GateThresholds) -> list[MethodScores]:
    """What the chosen method's backtest is read against: others in the same one, under the same gate."""
    found = []
    for method in default_methods():
        if not is_rival(method) or type(method) is type(chosen):
            continue
        other = method.model_copy(update={"horizon_steps": chosen.horizon_steps})
        with suppress(NoBacktestError):
            outcome = backtest(numerics_method(other), extraction, other.horizon_steps)
            total = Scores(**asdict(gate.applied(extraction, outcome, other.alpha)))
            scores = method_scores(other, outcome)
            found.append(scores.model_copy(update={"total": total, "modules": []}))
    return sorted(found, key=by_error)


def is_rival(method: Method) -> bool:
    """Whether every report has its scores: a forecast, or no jump at all, of what is at hand anyway."""
    return method.can_be_judged and numerics_method(method).needs == _AT_HAND


def by_error(scores: MethodScores) -> float:
    """Sorts the smallest relative error first, and what could not predict last."""
    return scores.total.relative_error if scores.total else float("inf")
