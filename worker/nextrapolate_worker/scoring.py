"""From the numerics' backtests to the scores that reports show."""

from contextlib import suppress
from dataclasses import asdict

from nextrapolate.schemas import (
    AutoMethod,
    AutoregressionMethod,
    BacktestReport,
    ExpoMethod,
    Method,
    MethodParameters,
    MethodScores,
    ModuleScores,
    NoneMethod,
    RelexMethod,
    Scores,
    WeightExtrapolationMethod,
)
from nextrapolate_numerics import (
    Backtest,
    Extraction,
    GateThresholds,
    NoBacktestError,
    NumericsError,
    backtest,
)
from nextrapolate_numerics import Scores as NumericsScores
from nextrapolate_worker.methods import numerics_method

_RIVALS: tuple[type[Method], ...] = (
    AutoMethod,
    AutoregressionMethod,
    WeightExtrapolationMethod,
    RelexMethod,
    ExpoMethod,
    NoneMethod,
)
"""Forecasts that combine checkpoints, and no jump: all they need is inner products that are there already."""


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
    others = [kind(horizon_steps=chosen.horizon_steps) for kind in _RIVALS if not isinstance(chosen, kind)]
    found = []
    for other in others:
        with suppress(NoBacktestError):
            outcome = backtest(numerics_method(other), extraction, other.horizon_steps)
            total = Scores(**asdict(gate.applied(extraction, outcome, other.alpha)))
            scores = method_scores(other, outcome)
            found.append(scores.model_copy(update={"total": total, "modules": []}))
    return sorted(found, key=by_error)


def by_error(scores: MethodScores) -> float:
    """Sorts the smallest relative error first, and what could not predict last."""
    return scores.total.relative_error if scores.total else float("inf")
