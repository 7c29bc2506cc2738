"""A report, read for somebody who has ten seconds: did it work, why, how sure is that, and what next.

The report's page, the service's pages and the notebook show these four answers first, in the same words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from nextrapolate.methods import label
from nextrapolate.schemas import (
    AnyReport,
    BacktestReport,
    Comparison,
    Inspection,
    MethodScores,
    NoneMethod,
    Report,
    RunBreak,
    Scores,
)

PAYS = 0.8
"""Relative error of a backtest below which extrapolation should pay on a run; no jump scores 1."""

Tone = Literal["good", "bad", "unknown"]
_TONES: dict[bool | None, Tone] = {True: "good", False: "bad", None: "unknown"}
_NOT_AT_ALL = "Not at all: nothing was measured on this run."


@dataclass(frozen=True)
class Reading:
    """What a report says, in short.

    Attributes:
        tone: whether the evidence speaks for extrapolating, against it, or not at all.
        worked: did it work?
        why: what speaks for or against.
        sure: how much that evidence is worth.
        following: what to do next.
    """

    tone: Tone
    worked: str
    why: str
    sure: str
    following: str

    @property
    def answers(self) -> tuple[tuple[str, str], ...]:
        """The questions of a first-time reader, and their answers."""
        return (
            ("Did it work?", self.worked),
            ("Why?", self.why),
            ("How sure is that?", self.sure),
            ("What next?", self.following),
        )


def read(report: AnyReport) -> Reading:
    """Answer the questions that a report is opened with."""
    match report:
        case Report() if report.repeats_jumps:
            return _repeating(report)
        case Report() if report.is_forecast:
            return _extrapolation(report)
        case Report():
            return _no_forecast(report)
        case Comparison():
            return _comparison(report)
        case Inspection():
            return _inspection(report)


def number(value: float | str | None) -> str:
    """Four digits that count, and a dash for what is not there."""
    if value is None:
        return "–"  # noqa: RUF001 - a dash is meant
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _extrapolation(report: Report) -> Reading:
    reading = _of_update(report)
    if not report.modules or any(module.update_norm for module in report.modules):
        return reading
    last = report.steps[-1]
    return replace(
        reading,
        tone="unknown" if report.recommended else reading.tone,
        worked=f"No: no module got an update, and the adapter is checkpoint {last} as it was.",
        following=f"Train on from checkpoint {last}." if report.recommended else reading.following,
    )


def _of_update(report: Report) -> Reading:
    last, tone = report.steps[-1], _TONES[report.recommended]
    what = f"for step {report.target_step}" if report.predicts_a_step else f"that goes on from step {last}"
    made = f"an adapter {what} was made from {len(report.steps)} checkpoints"
    if report.backtest is None:
        return Reading(
            tone,
            f"Yes: {made}. Whether to use it was not measured.",
            f"There is no backtest: {report.unmeasured}." if report.unmeasured else "There is no backtest.",
            _from_other_stretches(report),
            f"Evaluate the adapter against checkpoint {last} before you use it.",
        )
    if broken := report.unseen_break:
        return Reading(
            tone,
            f"In part: {made}, but the series is not the way of one run.",
            _broken(broken),
            f"The backtest was asked at step {report.backtest.origin_step}, and knows nothing of that.",
            f"Look at the checkpoints around step {broken.end_step}, and extrapolate from those of one run.",
        )
    scores = report.backtest.applied
    name, others = label(report.method), _forecasts(report.rivals)
    why = f"{_asked(report.backtest)}, {name} {_against_no_jump(scores)}. {_beside(others, scores)}"
    sure = _agreement(report, report.backtest)
    if report.recommended:
        return Reading(
            tone,
            f"Yes: {made}, and the run's own past speaks for using it.",
            why,
            f"{sure} A smaller error in the weights is not yet a more accurate model.",
            f"Load it, evaluate it against checkpoint {last}, and train on from the better of the two.",
        )
    instead = next((other for other, scored in others if scored.beats_no_jump), None)
    speaks = "neither for nor against" if report.recommended is None else "against"
    return Reading(
        tone,
        f"In part: {made}, but the run's own past speaks {speaks} using it.",
        why,
        sure,
        f"Train on from checkpoint {last}, "
        + (f"or run the job again with {instead}." if instead else "and ask again later or for fewer steps."),
    )


def _repeating(report: Report) -> Reading:
    last = report.steps[-1]
    why = (
        "With momentum the update holds the run's earlier jumps, too, and what training did repeats none of "
        "them: no backtest speaks for or against it."
    )
    if report.backtest is not None:
        scores = report.backtest.applied
        why += f" {_asked(report.backtest)}, it {_against_no_jump(scores)}, against training alone."
    return Reading(
        _TONES[report.recommended],
        f"Yes: an adapter for step {report.target_step} was made from {len(report.steps)} checkpoints. "
        "Whether to use it was not measured.",
        why,
        _NOT_AT_ALL,
        f"Evaluate the adapter against checkpoint {last} before you train on from it.",
    )


def _no_forecast(report: Report) -> Reading:
    name, last = label(report.method), report.steps[-1]
    back = ""
    if report.backtest is not None:
        back = (
            f" {_asked(report.backtest)}, it {_against_no_jump(report.backtest.total)}: so far it leads back."
        )
    return Reading(
        _TONES[report.recommended],
        f"Yes: an adapter for step {last} was made from {len(report.steps)} checkpoints.",
        f"{name} forecasts nothing, so that no backtest speaks for or against it.{back}",
        "Not at all: only an evaluation can tell.",
        f"Evaluate the adapter against checkpoint {last}, and use the better of the two.",
    )


def _comparison(report: Comparison) -> Reading:
    scored = _scored(report.methods)
    if not scored:
        reasons = dict.fromkeys(method.reason for method in report.methods if method.reason)
        return Reading(
            "unknown",
            "No: no method could predict.",
            "; ".join(reasons),
            _NOT_AT_ALL,
            "Collect more checkpoints before the origin, or choose a later one.",
        )
    (name, best), *others = scored
    next_best = f"Second best: {others[0][0]} ({others[0][1].relative_error:.2f})." if others else ""
    return Reading(
        _TONES[bool(best.beats_no_jump)],  # the best of all, `none` among them, is no better than that
        f"Yes: {len(scored)} of {len(report.methods)} methods were scored, asked at step {report.at} for "
        f"step {report.target_step}.",
        f"{name} {_against_no_jump(best)}. {next_best}",
        "One origin and one horizon: ask at other steps before you rely on the order of the methods.",
        f"Extrapolate with {name} over {report.target_step - report.at} steps, and evaluate the adapter."
        if best.beats_no_jump
        else "Do not jump here: train on, and ask again later or for fewer steps.",
    )


def _inspection(report: Inspection) -> Reading:
    worked = f"Yes: {len(report.linearity)} modules were measured at {len(report.track)} checkpoints"
    worked += f"; {len(report.still_modules)} more never moved." if report.still_modules else "."
    if report.evidence is None:
        return Reading(
            "unknown",
            worked,
            f"There is no backtest: {report.unmeasured}." if report.unmeasured else "There is no backtest.",
            _NOT_AT_ALL,
            "Inspect again when the run has gone on.",
        )
    if broken := report.broken_after(report.evidence.origin_step):
        return Reading(
            "bad",
            worked,
            _broken(broken),
            "As reliable as the assumption that the other increments belong to this run.",
            f"Look at the checkpoints around step {broken.end_step}, and inspect those of one run.",
        )
    scores = report.evidence.total
    steadiness = [step.steadiness for step in report.track if step.steadiness is not None]
    sure = "One held-out stretch of the run."
    if steadiness:
        sure += f" The mean cosine between successive increments is {fmean(steadiness):.2f}."
    following = "Train on; do not jump on this run."
    if scores.beats_no_jump:
        following = "Extrapolate in short jumps, and evaluate each."
    if scores.relative_error < PAYS:
        following = "Extrapolate: a backtest of all methods says which one to take."
    return Reading(
        _TONES[scores.beats_no_jump],
        worked,
        f"{_asked(report.evidence)}, {report.asked_method} {_against_no_jump(scores)}.",
        sure,
        following,
    )


def _broken(broken: RunBreak) -> str:
    return (
        f"From step {broken.begin_step} to {broken.end_step} the adapter moved {broken.times:.0f} times as "
        "far as the other increments suggest: two runs meet there, or training was restarted or broke."
    )


def _asked(backtest: BacktestReport) -> str:
    return f"Asked at step {backtest.origin_step} for step {backtest.target_step}, which is known"


def _against_no_jump(scores: Scores) -> str:
    error = scores.relative_error
    score = f"(relative error {error:.2f}; no jump is 1)"
    if scores.beats_no_jump is None:
        return f"came as close as no jump {score}"
    if scores.beats_no_jump:
        return f"came {1 - error:.0%} closer than no jump {score}"
    return f"was {error - 1:.0%} further off than no jump {score}"


def _beside(others: Sequence[tuple[str, Scores]], scores: Scores) -> str:
    """Whether another method did better, in a sentence; nothing where there is no other."""
    if not others:
        return ""
    name, best = others[0]
    if best.relative_error < scores.relative_error:
        return f"{name} did better ({best.relative_error:.2f})."
    return (
        f"None of the {len(others)} other methods did better (the best was {name}, "
        f"{best.relative_error:.2f})."
    )


def _from_other_stretches(report: Report) -> str:
    choice = report.choice
    if choice is None or choice.relative_error is None:
        return _NOT_AT_ALL
    return (
        f"Not very: this jump has no backtest, only {choice.backtests} over other parts of this run, with "
        f"a relative error of {choice.relative_error:.2f} (no jump: 1)."
    )


def _agreement(report: Report, backtest: BacktestReport) -> str:
    cosines = [module.backtest_cosine for module in report.modules if module.backtest_cosine is not None]
    seen = (
        f"Cosine {backtest.total.cosine:.2f} to the true update, {sum(cosine > 0 for cosine in cosines)} of "
        f"{len(cosines)} modules in its direction, on one held-out stretch of "
        f"{backtest.target_step - backtest.origin_step} steps"
    )
    choice = report.choice
    if choice is None or choice.relative_error is None:
        return f"{seen}."
    together = (
        f"In all {choice.backtests} backtests together the relative error is {choice.relative_error:.2f}."
    )
    return f"{seen}. {together}"


def _scored(methods: Sequence[MethodScores]) -> list[tuple[str, Scores]]:
    return [(label(method.method), method.total) for method in methods if method.total is not None]


def _forecasts(methods: Sequence[MethodScores]) -> list[tuple[str, Scores]]:
    return [(name, scores) for name, scores in _scored(methods) if name != NoneMethod().name]
