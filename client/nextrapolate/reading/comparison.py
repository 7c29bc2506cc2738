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
    """Say which method did best, and whether that is better than no jump."""
    ranked = scored(report.methods)
    if not ranked:
        return _nothing_scored(report)
    _, best = ranked[0]
    return _won(report, ranked) if best.beats_no_jump else _not_won(report, ranked)


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


def _won(report: Comparison, ranked: Sequence[tuple[AnsweredMethod, Scores]]) -> Reading:
    (method, best), steps = ranked[0], report.target_step - report.at
    return Reading(
        tone="good",
        headline="A method beats no jump.",
        verdict=f"{label(method)} predicts best, {_asked(report)}: {_error(best)} (cosine "
        f"{best.cosine:.2f}).",
        worked=_worked(report, ranked),
        why=_why(ranked),
        sure=_ONE_STRETCH,
        following=f"Extrapolate with {label(method)} over {steps} steps, and evaluate the adapter.",
        commands=Commands(
            "Extrapolate the run with the method that did best:",
            (f"nextrapolate extrapolate RUN_FOLDER {options(method)} --horizon-steps {steps}",),
        ),
    )


def _not_won(report: Comparison, ranked: Sequence[tuple[AnsweredMethod, Scores]]) -> Reading:
    """The best of all, `none` among them, came as close as no jump, or less."""
    (method, best), nearer = ranked[0], _between(report)
    return Reading(
        tone="bad",
        headline="No method beats no jump.",
        verdict=f"{label(method)} comes closest on this run, {_asked(report)}: {_error(best)}.",
        worked=_worked(report, ranked),
        why=_why(ranked),
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


def _worked(report: Comparison, ranked: Sequence[tuple[AnsweredMethod, Scores]]) -> str:
    return f"Yes: {len(ranked)} of {len(report.methods)} methods were scored, {_asked(report)}."


def _why(ranked: Sequence[tuple[AnsweredMethod, Scores]]) -> str:
    (method, best), *others = ranked
    why = f"{label(method)} {against_no_jump(best)}."
    if not others:
        return why
    second, scores = others[0]
    return f"{why} Second best: {label(second)} ({scores.relative_error:.2f})."
