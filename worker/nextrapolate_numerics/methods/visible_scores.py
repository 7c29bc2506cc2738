"""Scores of checkpoints that callers give: one for each checkpoint that a method learns from."""

from nextrapolate_numerics.errors import ScoreCountError
from nextrapolate_numerics.extraction import Extraction


def visible_scores(name: str, scores: tuple[float, ...], extraction: Extraction) -> tuple[float, ...]:
    """Those of the checkpoints that are visible: a backtest hides what comes after its origin.

    Raises:
        ScoreCountError: not one score for each checkpoint.
    """
    visible = extraction.drift.checkpoints
    if not visible <= len(scores) <= len(extraction.trajectory.steps):
        raise ScoreCountError(name, have=len(scores), need=visible)
    return scores[:visible]
