"""The drift: a trajectory with its jumps taken out.

A jump swaps an extrapolated adapter into the running trainer after step K. What training does afterwards it
does from there, so that

    drift_i = dW_i - sum over jumps at K < t_i of (dW_jump - dW_K)

goes on where it had been. Methods learn from the drift alone: a jump is no step that training took.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from nextrapolate_numerics.errors import TooFewCheckpointsError

Span = tuple[int | None, int]
"""(start, end): indices of two points, the difference of which training covered; None is the base model."""


@dataclass(frozen=True)
class Drift:
    """Where the drift stood at each step, in terms of the trajectory's points.

    Attributes:
        steps: (c + 1) ascending; the first is the origin, from which the drift is measured: the base model at
            step 0, or the first checkpoint where that is at step 0 itself or did not start from the base.
        segments: (c) from each step to the next, the points between which training covered it.
        points: number of points of the trajectory, those not visible here included.
    """

    steps: tuple[int, ...]
    segments: tuple[Span, ...]
    points: int

    @classmethod
    def of(cls, steps: Sequence[int], jump_steps: Sequence[int], *, starts_at_base: bool) -> "Drift":
        """From the steps of the checkpoints and of the jumps, points being numbered in that order."""
        jumped = {step: len(steps) + index for index, step in enumerate(jump_steps)}
        segments: list[Span] = [(jumped.get(step, index), index + 1) for index, step in enumerate(steps[:-1])]
        points = len(steps) + len(jump_steps)
        if starts_at_base and steps[0] > 0:
            return cls((0, *steps), ((None, 0), *segments), points)
        return cls(tuple(steps), tuple(segments), points)

    @property
    def last_step(self) -> int:
        """Step of the last checkpoint."""
        return self.steps[-1]

    @cached_property
    def ages(self) -> tuple[int, ...]:
        """(c + 1) steps since the origin: a run that continues an adapter may go on with its numbers."""
        return tuple(step - self.steps[0] for step in self.steps)

    @property
    def last_point(self) -> int:
        """Index of the last checkpoint among the points."""
        return self.segments[-1][1]

    @property
    def starts_at_base(self) -> bool:
        """True where the origin is the base model, and not the first checkpoint."""
        return self.segments[0][0] is None

    @property
    def checkpoints(self) -> int:
        """Number of checkpoints that are visible; the base model is none."""
        return len(self.steps) - self.starts_at_base

    @property
    def spacing(self) -> int:
        """The median number of steps from one checkpoint to the next."""
        gaps = sorted(later - earlier for earlier, later in pairwise(self.steps))
        return gaps[len(gaps) // 2]

    @cached_property
    def coefficients(self) -> Tensor:
        """(c + 1, p) float64: the drift at each step as a combination of points; the origin's row is 0."""
        rows = torch.zeros(len(self.steps), self.points, dtype=torch.float64)
        for index, (start, end) in enumerate(self.segments):
            rows[index + 1] = rows[index]
            rows[index + 1, end] += 1
            if start is not None:
                rows[index + 1, start] -= 1
        return rows

    @cached_property
    def positions(self) -> Tensor:
        """(c + 1, p) float64: where the run stood at each step, jumps included; the origin's row is 0."""
        rows = torch.zeros(len(self.steps), self.points, dtype=torch.float64)
        for index, (_, end) in enumerate(self.segments):
            rows[index + 1, end] = 1
        if not self.starts_at_base:
            rows[1:, 0] -= 1
        return rows

    @property
    def whole_way(self) -> Tensor:
        """(p,) float64: the last checkpoint as it is, its jumps included, less the origin."""
        return self.positions[-1]

    def spans(self, start: int, end: int) -> tuple[Span, ...]:
        """The drift between two steps (by index) as spans of points, one more than jumps lie between."""
        spans: list[Span] = [self.segments[start]]
        for segment in self.segments[start + 1 : end]:
            if segment[0] == spans[-1][1]:
                spans[-1] = (spans[-1][0], segment[1])
            else:
                spans.append(segment)
        return tuple(spans)

    def check_length(self, steps: int, method: str) -> None:
        """See that there are so many steps, the origin among them, as a method needs.

        Raises:
            TooFewCheckpointsError: there are fewer; says how many checkpoints would do.
        """
        if (missing := steps - len(self.steps)) > 0:
            raise TooFewCheckpointsError(method, have=self.checkpoints, need=self.checkpoints + missing)

    def nearest(self, step: float) -> int:
        """Index of the step nearest to `step`, the later of two that are equally near."""
        right = min(bisect_left(self.steps, step), len(self.steps) - 1)
        if right > 0 and step - self.steps[right - 1] < self.steps[right] - step:
            return right - 1
        return right

    def pairs(self, horizon_steps: int) -> tuple[tuple[int, int], ...]:
        """Pairs (i, i + k) of checkpoints, by index, `horizon_steps` apart or as nearly as the steps allow.

        The origin is no checkpoint, and has no partner. k follows from the steps: with uneven ones the
        partner is the later checkpoint nearest to t_i + horizon_steps.
        """
        return tuple(
            (index, max(self.nearest(step + horizon_steps), index + 1))
            for index, step in enumerate(self.steps)
            if index > 0 and step + horizon_steps <= self.last_step
        )

    def coming(self, at: int, horizon_steps: int) -> range:
        """Indices of the steps that came within a horizon of one, or of the next however far it is."""
        within = bisect_right(self.steps, self.steps[at] + horizon_steps)
        return range(at + 1, min(max(within, at + 2), len(self.steps)))

    def longest(self, horizon_steps: int) -> int:
        """Steps of the longest increment that is asked for: that of a pair may be more than the horizon."""
        asked = (self.steps[end] - self.steps[begin] for begin, end in self.pairs(horizon_steps))
        return max(horizon_steps, *asked, 0)

    def window(self, steps: int) -> int:
        """Index of the step nearest to `steps` before the last one, which itself is left out."""
        return min(self.nearest(self.last_step - steps), len(self.steps) - 2)

    def until(self, index: int) -> "Drift":
        """What could be seen of the drift at the step of that index."""
        return Drift(self.steps[: index + 1], self.segments[:index], self.points)
