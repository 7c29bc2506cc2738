"""Why an update is what it is: what a method that chooses by backtests tried, and what it took."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """One way to predict, and what became of it.

    Attributes:
        label: for people.
        relative_error: over all its backtests on this run, weighted; no jump scores 1. None where there were
            no backtests.
        share: of the update, 0 to 1; all shares sum to 1.
    """

    label: str
    relative_error: float | None
    share: float


@dataclass(frozen=True)
class KindChoice:
    """What was taken for the modules of one kind.

    Attributes:
        kind: last part of the modules' names, such as q_proj.
        modules: how many moved.
        relative_error: of what was taken, over all its backtests; None where there were none. It is fitted to
            them, so that this is never above 1.
        amplitude: length of the update over that of the mean of the candidates that jump.
        leading: label of the candidate of the largest share.
    """

    kind: str
    modules: int
    relative_error: float | None
    amplitude: float
    leading: str


@dataclass(frozen=True)
class Choice:
    """How an update was chosen.

    Attributes:
        why: a few sentences, in words and numbers.
        backtests: how many pairs of an earlier checkpoint and a later one were predicted.
        relative_error: of what was taken, over all backtests, weighted; None where there were none. Never
            above 1 either.
        candidates: the best first.
        kinds: in the order of their names.
    """

    why: str
    backtests: int
    relative_error: float | None
    candidates: tuple[Candidate, ...]
    kinds: tuple[KindChoice, ...]
