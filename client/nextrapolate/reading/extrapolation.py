"""An extrapolation, read."""

from nextrapolate.methods import label
from nextrapolate.reading.parts import (
    NOT_AT_ALL,
    Reading,
    against_no_jump,
    asked,
    moved_too_far,
    no_backtest,
    not_measured,
    scored,
    two_runs_meet,
)
from nextrapolate.schemas import BacktestReport, NoneMethod, Report, RunBreak, Scores

_FITTED = "the update is fitted to them, so that this is never above 1"


def read_extrapolation(report: Report) -> Reading:
    """Say what was made, and whether to use it."""
    evidence = report.backtest if report.is_forecast and not report.repeats_jumps else None
    if evidence and (broken := report.unseen_break):
        return _not_one_run(report, evidence, broken)
    if report.adds_nothing:
        return _nothing_added(report, evidence)
    if not report.is_forecast:
        return _no_forecast(report)
    if report.repeats_jumps:
        return _repeating(report)
    if evidence is None:
        return _unmeasured(report)
    return (_recommended if report.recommended else _not_recommended)(report, evidence)


def _not_one_run(report: Report, evidence: BacktestReport, broken: RunBreak) -> Reading:
    origin = evidence.origin_step
    made = f"In part: {_made(report)}, but the series is not the way of one run."
    return Reading(
        tone="bad",
        headline="Jump not recommended.",
        verdict=f"{moved_too_far(broken)}, and what its past says of a jump (relative error "
        f"{evidence.applied.relative_error:.2f}, asked at step {origin}) does not hold beyond that; keep to "
        "the checkpoints of one run.",
        worked=_as_it_was(report) if report.adds_nothing else made,
        why=two_runs_meet(broken),
        sure=f"The backtest was asked at step {origin}, and knows nothing of that.",
        following=f"Look at the checkpoints around step {broken.end_step}, and extrapolate from those of one "
        "run.",
    )


def _nothing_added(report: Report, evidence: BacktestReport | None) -> Reading:
    """The adapter is the last checkpoint: there is no jump that the evidence could speak for."""
    last, name, instead = report.steps[-1], label(report.method), _better_than_no_jump(report)
    if isinstance(report.method, NoneMethod):
        why = f"{name} adds nothing: it is what other methods are compared with."
    else:
        why = _gated(report) or f"{name} changes no module."
    if evidence is not None:
        why += f" {asked(evidence)}, it {against_no_jump(evidence.applied)}."
    return Reading(
        tone="unknown",
        headline="Nothing was added.",
        verdict=_sentences(
            f"No module got an update: the adapter is checkpoint {last} as it was.", _gated(report)
        ),
        worked=_as_it_was(report),
        why=why,
        sure="Certain: the update of every module is 0.",
        following=f"Train on from checkpoint {last}"
        + (f", or run the job again with {instead}." if instead else "."),
    )


def _no_forecast(report: Report) -> Reading:
    last = report.steps[-1]
    why = f"{label(report.method)} forecasts nothing, so that no backtest speaks for or against it."
    if report.backtest is not None:
        scores = report.backtest.total
        why += f" {asked(report.backtest)}, it {against_no_jump(scores)}"
        why += ": so far it leads back." if scores.beats_no_jump is False else "."
    return Reading(
        tone="unknown",
        headline="Evaluate it.",
        verdict="Not a forecast: the adapter replaces the last checkpoint, and no backtest can judge that. "
        "Compare the two before you use it.",
        worked=f"Yes: {_made(report)}.",
        why=why,
        sure="Not at all: only an evaluation can tell.",
        following=f"Evaluate the adapter against checkpoint {last}, and use the better of the two.",
    )


def _repeating(report: Report) -> Reading:
    why = (
        "With momentum the update holds the run's earlier jumps, too, and what training did repeats none of "
        "them: no backtest speaks for or against it."
    )
    if report.backtest is not None:
        scores = report.backtest.applied
        why += f" {asked(report.backtest)}, it {against_no_jump(scores)}, against training alone."
    return Reading(
        tone="unknown",
        headline="Not measured.",
        verdict="Momentum repeats the run's earlier jumps, which a backtest on training alone "
        "cannot judge. Evaluate the adapter before you use it.",
        worked=f"Yes: {_made(report)}. Whether to use it was not measured.",
        why=why,
        sure=NOT_AT_ALL,
        following=f"Evaluate the adapter against checkpoint {report.steps[-1]} before you train on from it.",
    )


def _unmeasured(report: Report) -> Reading:
    return Reading(
        tone="unknown",
        headline="Not measured.",
        verdict=not_measured(
            report.unmeasured,
            "Nothing speaks for or against this jump: evaluate the adapter before you trust it.",
        ),
        worked=f"Yes: {_made(report)}. Whether to use it was not measured.",
        why=no_backtest(report.unmeasured),
        sure=_from_other_stretches(report),
        following=f"Evaluate the adapter against checkpoint {report.steps[-1]} before you use it.",
    )


def _recommended(report: Report, evidence: BacktestReport) -> Reading:
    return Reading(
        tone="good",
        headline="Jump recommended.",
        verdict=_sentences(_speaks(report, evidence, "for", "better than"), _gated(report)),
        worked=f"Yes: {_made(report)}, and the run's own past speaks for using it.",
        why=_beside_others(report, evidence),
        sure=f"{_agreement(report, evidence)} A smaller error in the weights is not yet a more accurate "
        "model.",
        following=f"Load it, evaluate it against checkpoint {report.steps[-1]}, and train on from the better "
        "of the two.",
    )


def _not_recommended(report: Report, evidence: BacktestReport) -> Reading:
    """The method came as close as no jump, or less."""
    as_close = report.recommended is None
    speaks, did = ("neither for nor against", "as well as") if as_close else ("against", "no better than")
    instead = _better_than_no_jump(report)
    return Reading(
        tone="unknown" if as_close else "bad",
        headline="As good as no jump." if as_close else "Jump not recommended.",
        verdict=_sentences(_speaks(report, evidence, speaks, did), _gated(report)),
        worked=f"In part: {_made(report)}, but the run's own past speaks {speaks} using it.",
        why=_beside_others(report, evidence),
        sure=_agreement(report, evidence),
        following=f"Train on from checkpoint {report.steps[-1]}, "
        + (f"or run the job again with {instead}." if instead else "and ask again later or for fewer steps."),
    )


def _speaks(report: Report, evidence: BacktestReport, speaks: str, did: str) -> str:
    scores = evidence.applied
    return (
        f"The run's own past speaks {speaks} the jump: asked at step {evidence.origin_step} for step "
        f"{evidence.target_step}, which is known, the method did {did} no jump (relative error "
        f"{scores.relative_error:.2f} at alpha {report.method.alpha:g}, where no jump scores 1; cosine "
        f"{scores.cosine:.2f})."
    )


def _made(report: Report) -> str:
    last = report.steps[-1]
    aimed = report.predicts_a_step or not report.is_forecast
    what = f"for step {report.target_step}" if aimed else f"that goes on from step {last}"
    return f"an adapter {what} was made from {len(report.steps)} checkpoints"


def _as_it_was(report: Report) -> str:
    return f"No: no module got an update, and the adapter is checkpoint {report.steps[-1]} as it was."


def _gated(report: Report) -> str:
    """How much the gate kept; nothing where it kept nothing."""
    gated = len(report.gated_modules)
    return f"The gate left {gated} of {len(report.modules)} modules at the last checkpoint." if gated else ""


def _beside_others(report: Report, evidence: BacktestReport) -> str:
    """How the method did, and whether another did better, where there is one."""
    scores, others = evidence.applied, _other_forecasts(report)
    did = f"{asked(evidence)}, {label(report.method)} {against_no_jump(scores)}."
    if not others:
        return did
    name, best = others[0]
    if best.relative_error < scores.relative_error:
        by_chance = best.beats_no_jump and not best.beats_no_jump_as_best_of(len(others))
        chance = f", as the best of {len(others)} may by chance" if by_chance else ""
        return f"{did} {name} did better ({best.relative_error:.2f}){chance}."
    return (
        f"{did} None of the {len(others)} other methods did better (the best was {name}, "
        f"{best.relative_error:.2f})."
    )


def _better_than_no_jump(report: Report) -> str | None:
    others = _other_forecasts(report)
    return next((name for name, best in others if best.beats_no_jump_as_best_of(len(others))), None)


def _other_forecasts(report: Report) -> list[tuple[str, Scores]]:
    return [(label(method), scores) for method, scores in scored(report.rivals) if method.is_forecast]


def _from_other_stretches(report: Report) -> str:
    choice = report.choice
    if choice is None or choice.relative_error is None:
        return NOT_AT_ALL
    return (
        f"Not very: this jump has no backtest, only {choice.backtests} over other parts of this run, with "
        f"a relative error of {choice.relative_error:.2f} (no jump: 1); {_FITTED}."
    )


def _agreement(report: Report, evidence: BacktestReport) -> str:
    cosines = [module.backtest_cosine for module in report.modules if module.backtest_cosine is not None]
    seen = (
        f"Cosine {evidence.total.cosine:.2f} to the true update, {sum(cosine > 0 for cosine in cosines)} of "
        f"{len(cosines)} modules in its direction, on one held-out stretch of "
        f"{evidence.target_step - evidence.origin_step} steps."
    )
    choice = report.choice
    if choice is None or choice.relative_error is None:
        return seen
    return (
        f"{seen} In all {choice.backtests} backtests together the relative error is "
        f"{choice.relative_error:.2f}; {_FITTED}."
    )


def _sentences(*said: str) -> str:
    return " ".join(filter(None, said))
