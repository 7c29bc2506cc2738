"""Scores of checkpoints that callers give: one for each checkpoint that a method learns from."""

from nextrapolate_numerics.errors import ScoreCountError
from nextrapolate_numerics.extraction import Extraction


def visible_scores(name: str, scores: tuple[float, ...], extraction: Extraction) -> tuple[float, ...]:
    """Those of the checkpoints that are visible.

    Scores begin at the first checkpoint, so that a backtest, which hides what comes after its origin, takes
    those up to there: however many follow, and whichever checkpoints it kept of what is hidden.

    Raises:
        ScoreCountError: not one score for each checkpoint; in a backtest fewer than are visible.
    """
    visible = extraction.drift.checkpoints
    hidden = len(extraction.trajectory.steps) - visible
    if len(scores) < visible or (len(scores) > visible and not hidden):
        raise ScoreCountError(name, have=len(scores), need=visible)
    return scores[:visible]
