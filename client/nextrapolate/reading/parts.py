"""A reading, and the sentences that readings of more than one kind of report say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nextrapolate.schemas import AnsweredMethod, BacktestReport, MethodScores, RunBreak, Scores

Tone = Literal["good", "bad", "unknown"]
_MARKS: Mapping[Tone, str] = {"good": "✓", "bad": "✗", "unknown": "?"}

NOT_AT_ALL = "Not at all: nothing was measured on this run."


@dataclass(frozen=True)
class Commands:
    """What to type next.

    Attributes:
        purpose: what it is good for, in words that end in a colon.
        lines: commands of a shell, one a line; RUN_FOLDER stands for the run's folder.
    """

    purpose: str
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a report says, in short.

    Attributes:
        tone: whether the evidence speaks for extrapolating, against it, or not at all.
        headline: the verdict in a few words.
        verdict: one sentence or two, with the numbers.
        worked: did it work?
        why: what speaks for or against.
        sure: how much that evidence is worth.
        following: what to do next.
        commands: how to do that at a terminal, on checkpoints that are there; None where there is nothing to
            type. How an adapter is loaded is the same for all, and the page's to say.
    """

    tone: Tone
    headline: str
    verdict: str
    worked: str
    why: str
    sure: str
    following: str
    commands: Commands | None = None

    @property
    def mark(self) -> str:
        """The tone as one character."""
        return _MARKS[self.tone]

    @property
    def answers(self) -> tuple[tuple[str, str], ...]:
        """The questions of a first-time reader, and their answers."""
        return (
            ("Did it work?", self.worked),
            ("Why?", self.why),
            ("How sure is that?", self.sure),
            ("What next?", self.following),
        )


def not_measured(reason: str | None, consequence: str) -> str:
    """Give the verdict on what has no backtest; reports of before do not all say why."""
    return f"{reason[0].upper()}{reason[1:]}. {consequence}" if reason else consequence


def no_backtest(reason: str | None) -> str:
    """Say that there is none, and why, where the report does."""
    return f"There is no backtest: {reason}." if reason else "There is no backtest."


def moved_too_far(broken: RunBreak) -> str:
    """Begin the verdict on a series that is not the way of one run."""
    return (
        f"Not to be trusted: from step {broken.begin_step} to {broken.end_step} the adapter moved "
        f"{broken.times:.0f} times as far as this run does"
    )


def two_runs_meet(broken: RunBreak) -> str:
    """Say what a break of the series may be."""
    return (
        f"From step {broken.begin_step} to {broken.end_step} the adapter moved {broken.times:.0f} times as "
        "far as the other increments suggest: two runs meet there, or training was restarted or broke."
    )


def asked(backtest: BacktestReport) -> str:
    """Begin a sentence on how a method did."""
    return f"Asked at step {backtest.origin_step} for step {backtest.target_step}, which is known"


def against_no_jump(scores: Scores) -> str:
    """Say how a method did, its name before it."""
    error = scores.relative_error
    score = f"(relative error {error:.2f}; no jump is 1)"
    if scores.beats_no_jump is None:
        return f"came as close as no jump {score}"
    if scores.beats_no_jump:
        return f"came {1 - error:.0%} closer than no jump {score}"
    return f"was {error - 1:.0%} further off than no jump {score}"


def scored(methods: Sequence[MethodScores]) -> list[tuple[AnsweredMethod, Scores]]:
    """Leave out the methods that could not predict."""
    return [(each.method, each.total) for each in methods if each.total is not None]


def backtest_command(at: int, target_step: int) -> str:
    """Ask all methods at one checkpoint of the run for a later one."""
    return f"nextrapolate backtest RUN_FOLDER --at {at} --horizon-steps {target_step - at}"
