"""An inspection, read."""

from statistics import fmean
from typing import NamedTuple

from nextrapolate.reading.parts import (
    NOT_AT_ALL,
    Commands,
    Reading,
    Tone,
    against_no_jump,
    asked,
    backtest_command,
    moved_too_far,
    no_backtest,
    not_measured,
    two_runs_meet,
)
from nextrapolate.schemas import BacktestReport, Inspection, RunBreak, Scores

PAYS = 0.8
"""Relative error of a backtest below which extrapolation should pay on a run; no jump scores 1."""


def read_inspection(report: Inspection) -> Reading:
    """Say whether a run is worth extrapolating."""
    if report.evidence is None:
        return _unmeasured(report)
    if broken := report.broken_after(report.evidence.origin_step):
        return _not_one_run(report, broken)
    return _measured(report, report.evidence)


def _unmeasured(report: Inspection) -> Reading:
    return Reading(
        tone="unknown",
        headline="Not measured.",
        verdict=not_measured(report.unmeasured, "Nothing says whether extrapolation pays on this run."),
        worked=_worked(report),
        why=no_backtest(report.unmeasured),
        sure=NOT_AT_ALL,
        following="Inspect again when the run has gone on.",
    )


def _not_one_run(report: Inspection, broken: RunBreak) -> Reading:
    return Reading(
        tone="bad",
        headline="Not worth extrapolating.",
        verdict=f"{moved_too_far(broken)}; keep to the checkpoints of one run, and inspect those.",
        worked=_worked(report),
        why=two_runs_meet(broken),
        sure="As reliable as the assumption that the other increments belong to this run.",
        following=f"Look at the checkpoints around step {broken.end_step}, and inspect those of one run.",
    )


class _Judgement(NamedTuple):
    tone: Tone
    headline: str
    verdict: str
    following: str


_PAYS = _Judgement(
    "good",
    "Worth extrapolating.",
    "Extrapolation should pay on this run",
    "Extrapolate: a backtest of all methods says which one to take.",
)
_PAYS_A_LITTLE = _Judgement(
    "good",
    "Worth extrapolating.",
    "Extrapolation may pay a little on this run; keep jumps short and evaluate them",
    "Extrapolate in short jumps, and evaluate each.",
)
_AS_CLOSE = _Judgement(
    "unknown",
    "As good as no jump.",
    "Extrapolation should make no difference on this run",
    "Train on; do not jump on this run.",
)
_DOES_NOT_PAY = _Judgement(
    "bad",
    "Not worth extrapolating.",
    "Extrapolation should not pay on this run",
    "Train on; do not jump on this run.",
)


def _measured(report: Inspection, evidence: BacktestReport) -> Reading:
    scores = evidence.total
    judgement = _judged(scores)
    return Reading(
        tone=judgement.tone,
        headline=judgement.headline,
        verdict=f"{judgement.verdict}: {report.asked_method}, asked at step {evidence.origin_step} for step "
        f"{evidence.target_step}, has relative error {scores.relative_error:.2f}, where no jump scores 1 "
        f"(cosine {scores.cosine:.2f}).",
        worked=_worked(report),
        why=f"{asked(evidence)}, {report.asked_method} {against_no_jump(scores)}.",
        sure=_sure(report),
        following=judgement.following,
        commands=_commands(report, evidence, judgement),
    )


def _judged(scores: Scores) -> _Judgement:
    if scores.relative_error < PAYS:
        return _PAYS
    if scores.beats_no_jump is None:
        return _AS_CLOSE
    return _PAYS_A_LITTLE if scores.beats_no_jump else _DOES_NOT_PAY


def _commands(report: Inspection, evidence: BacktestReport, judgement: _Judgement) -> Commands | None:
    """The backtest that the inspection made, of all methods; a shorter one where only short jumps may pay."""
    if judgement.tone != "good":
        return None
    at, target_step = evidence.origin_step, evidence.target_step
    if judgement is _PAYS_A_LITTLE:
        target_step = min(step for step in (*report.steps, target_step) if step > at)
    return Commands(
        "See which method knows best where this run goes, then extrapolate with it:",
        (
            backtest_command(at, target_step),
            f"nextrapolate extrapolate RUN_FOLDER --horizon-steps {target_step - at}",
        ),
    )


def _worked(report: Inspection) -> str:
    worked = f"Yes: {len(report.linearity)} modules were measured at {len(report.track)} checkpoints"
    return worked + (f"; {len(report.still_modules)} more never moved." if report.still_modules else ".")


def _sure(report: Inspection) -> str:
    steadiness = [step.steadiness for step in report.track if step.steadiness is not None]
    if not steadiness:
        return "One held-out stretch of the run."
    return (
        "One held-out stretch of the run. The mean cosine between successive increments is "
        f"{fmean(steadiness):.2f}."
    )
