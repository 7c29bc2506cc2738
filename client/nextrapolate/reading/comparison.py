"""A backtest of many methods, read."""

from collections.abc import Sequence

from nextrapolate.methods import label, options
from nextrapolate.reading.parts import (
    NOT_AT_ALL,
    Commands,
    Reading,
    against_no_jump,
    backtest_command,
    scored,
)
from nextrapolate.schemas import AnsweredMethod, Comparison, Scores

_ONE_STRETCH = "One origin and one horizon: ask at other steps before you rely on the order of the methods."


def read_comparison(report: Comparison) -> Reading:
    """Say which method did best, and whether that is better than no jump, and than chance."""
    ranked = scored(report.judged)
    if not ranked:
        return _no_forecast_scored(report) if scored(report.methods) else _nothing_scored(report)
    _, best = ranked[0]
    won = best.beats_no_jump_as_best_of(_forecasts(ranked))
    return _won(report, ranked) if won else _not_won(report, ranked)


def _nothing_scored(report: Comparison) -> Reading:
    later = _between(report)
    return Reading(
        tone="unknown",
        headline="Not measured.",
        verdict=f"No method could predict, {_asked(report)}; each says why.",
        worked="No: no method could predict.",
        why="; ".join(dict.fromkeys(method.reason for method in report.methods if method.reason)),
        sure=NOT_AT_ALL,
        following="Collect more checkpoints before the origin, or choose a later one.",
        commands=None
        if later is None
        else Commands("Choose a later origin:", (backtest_command(later, report.target_step),)),
    )


def _no_forecast_scored(report: Comparison) -> Reading:
    """Only averages, or `dare`, could do what was asked."""
    names = ", ".join(label(method) for method, _ in scored(report.methods))
    return Reading(
        tone="unknown",
        headline="Not measured.",
        verdict=f"No forecast was scored, {_asked(report)}: no backtest can judge what forecasts nothing.",
        worked=_worked(report),
        why=f"These forecast nothing: {names}.",
        sure="Not at all: only an evaluation can tell.",
        following="Backtest methods that forecast; evaluate the others' adapters.",
    )


def _won(report: Comparison, ranked: Sequence[tuple[AnsweredMethod, Scores]]) -> Reading:
    (method, best), steps = ranked[0], report.target_step - report.at
    return Reading(
        tone="good",
        headline="A method beats no jump.",
        verdict=f"{label(method)} predicts best, {_asked(report)}: {_error(best)} (cosine "
        f"{best.cosine:.2f}).",
        worked=_worked(report),
        why=_why(report, ranked),
        sure=_ONE_STRETCH,
        following=f"Extrapolate with {label(method)} over {steps} steps, and evaluate the adapter.",
        commands=Commands(
            "Extrapolate the run with the method that did best:",
            (f"nextrapolate extrapolate RUN_FOLDER {options(method)} --horizon-steps {steps}",),
        ),
    )


def _not_won(report: Comparison, ranked: Sequence[tuple[AnsweredMethod, Scores]]) -> Reading:
    """The best of all, `none` among them, came no closer than no jump, or than the best would by chance."""
    (method, best), nearer = ranked[0], _between(report)
    by_chance = (
        f" On a run that wanders at random, the best of {_forecasts(ranked)} methods may come as close."
        if best.beats_no_jump
        else ""
    )
    return Reading(
        tone="unknown" if by_chance else "bad",
        headline="No better than chance." if by_chance else "No method beats no jump.",
        verdict=f"{label(method)} comes closest on this run, {_asked(report)}: {_error(best)}.{by_chance}",
        worked=_worked(report),
        why=_why(report, ranked),
        sure=_ONE_STRETCH,
        following="Do not jump here: train on, and ask again later or for fewer steps.",
        commands=None
        if nearer is None
        else Commands("Ask again for fewer steps:", (backtest_command(report.at, nearer),)),
    )


def _between(report: Comparison) -> int | None:
    """A checkpoint between the origin and what was predicted, about half-way; None where there is none."""
    steps = [step for step in report.steps if report.at < step < report.target_step]
    return steps[(len(steps) - 1) // 2] if steps else None


def _asked(report: Comparison) -> str:
    return f"asked at step {report.at} for step {report.target_step}"


def _error(scores: Scores) -> str:
    return f"relative error {scores.relative_error:.2f}, where no jump scores 1"


def _worked(report: Comparison) -> str:
    scored_methods = len(scored(report.methods))
    return f"Yes: {scored_methods} of {len(report.methods)} methods were scored, {_asked(report)}."


def _forecasts(ranked: Sequence[tuple[AnsweredMethod, Scores]]) -> int:
    """How many could be the best by chance: `none` cannot."""
    return sum(method.is_forecast for method, _ in ranked)


def _why(report: Comparison, ranked: Sequence[tuple[AnsweredMethod, Scores]]) -> str:
    (method, best), *others = ranked
    why = f"{label(method)} {against_no_jump(best)}."
    if others:
        second, scores = others[0]
        why += f" Second best: {label(second)} ({scores.relative_error:.2f})."
    closest, least = scored(report.methods)[0]
    if closest.can_be_judged:
        return why
    return (
        f"{why} {label(closest)} came closer ({least.relative_error:.2f}), but forecasts nothing: no "
        "backtest can judge it."
    )
