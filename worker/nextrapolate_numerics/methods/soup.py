"""Soups: the mean of a run's checkpoints, of all the last ones or of those that score (arXiv 2203.05482).

The greedy soup of the paper takes the models in the order of their scores, and keeps each one that does not
lower the score of the mean, which it measures. A mean cannot be run here: its score is *predicted* from those
of the checkpoints (score_surface.py). That is a departure, and the report says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from nextrapolate_numerics.errors import TooFewCheckpointsError
from nextrapolate_numerics.extraction import Evidence, Extraction, summed
from nextrapolate_numerics.methods.score_surface import ScoreSurface
from nextrapolate_numerics.methods.visible_scores import visible_scores
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Combination, Update


@dataclass(frozen=True)
class Soup:
    """W = 1/q sum_i W_i over q checkpoints, each weighing the same whatever its distance.

    Of the drift, so that a jump is not half undone: the update is the mean of drift_i - drift_c. It leads
    back, not ahead, and is no forecast.

    Attributes:
        window_steps: the window starts at the checkpoint nearest to this many steps before the last; the base
            model is no checkpoint.
        selection: "uniform", all checkpoints of the window; "greedy", those of them that do not lower the
            predicted score.
        scores: one for each checkpoint, in the order of their steps, those before the window included: they
            too tell how the score changes with the weights.

    Raises:
        ValueError: a greedy soup without scores, or scores for a uniform one.
    """

    window_steps: int = 50
    selection: Literal["uniform", "greedy"] = "uniform"
    scores: tuple[float, ...] | None = None

    needs: ClassVar[Evidence] = Evidence(gram=True)

    def __post_init__(self) -> None:
        if (self.selection == "greedy") != (self.scores is not None):
            raise ValueError(
                "selection='greedy' and scores go together: give one score for each checkpoint, or leave "
                "both out"
            )

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """A mean of two checkpoints is the least that is not the last one."""
        if drift.checkpoints < 2:
            raise TooFewCheckpointsError("soup", have=drift.checkpoints, need=2)

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """The mean of what is selected, relative to the last checkpoint; the horizon does not enter.

        Raises:
            TooFewCheckpointsError: as `check`.
            ScoreCountError: not one score for each checkpoint.
        """
        drift = extraction.drift
        self.check(drift, horizon_steps)
        first = int(drift.starts_at_base)
        window = range(max(drift.window(self.window_steps), first), len(drift.steps))
        chosen, warnings = self._selected(extraction, window)
        weights = drift.coefficients[chosen].mean(dim=0) - drift.coefficients[-1]
        on_progress(1.0)
        return Combination(0, warnings, dict.fromkeys(extraction.moved, weights))

    def _selected(self, extraction: Extraction, window: range) -> tuple[list[int], tuple[str, ...]]:
        """The steps of the soup, by their index in the drift, and what to say about them."""
        if self.scores is None:
            return list(window), ()
        return _greedy_soup(extraction, visible_scores("scores", self.scores, extraction), window)


def greedy_selection(order: Sequence[int], score: Callable[[list[int]], float]) -> list[int]:
    """Keep the first, then each one that does not lower the score of the mean (the paper's Recipe 1).

    Args:
        order: candidates, the best first.
        score: of the mean of several candidates.
    """
    chosen = [order[0]]
    best = score(chosen)
    for candidate in order[1:]:
        reached = score([*chosen, candidate])
        if reached >= best:
            chosen, best = [*chosen, candidate], reached
    return chosen


def _greedy_soup(
    extraction: Extraction, scores: tuple[float, ...], window: range
) -> tuple[list[int], tuple[str, ...]]:
    """The steps of the soup, by their index in the drift, and what to say about it."""
    drift = extraction.drift
    first = len(drift.steps) - len(scores)
    rows = drift.coefficients[first:]
    surface = ScoreSurface(
        rows @ summed(extraction.grams) @ rows.T, torch.tensor(scores, dtype=torch.float64)
    )

    def predicted(indices: Sequence[int]) -> float:
        mean = torch.zeros(len(scores), dtype=torch.float64)
        mean[[index - first for index in indices]] = 1 / len(indices)
        return surface.at(mean)

    order = sorted(window, key=lambda index: (scores[index - first], index), reverse=True)
    chosen = sorted(greedy_selection(order, predicted))
    steps = ", ".join(str(drift.steps[index]) for index in chosen)
    return chosen, (
        f"The soup averages the checkpoints at step {steps}. Its score is predicted from their scores, not "
        f"measured: {predicted(chosen):.3g}, where the prediction for the best checkpoint alone is "
        f"{predicted(order[:1]):.3g}.",
    )
