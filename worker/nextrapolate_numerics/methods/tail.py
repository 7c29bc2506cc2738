"""A run's own tail: the speeds it had and the increments that followed, which methods learn to foretell."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nextrapolate_numerics.series import Drift

_DECAY_STEPS = 10  # `decay` is the weight of an increment for each so many steps of its age
_HORIZON_POWER = 0.5  # weight (h' / h)^0.5: a short horizon says less of the long one, but says it later


class Increment(NamedTuple):
    """The drift from one step to a later one.

    Attributes:
        end: index of the later step.
        steps: between the two.
        weight: among increments of all ages; it falls with the age of the first step, and rises with `steps`.
    """

    end: int
    steps: int
    weight: float


def origins(drift: Drift) -> range:
    """Indices of the steps that have one before them and one after."""
    return range(1, len(drift.steps) - 1)


def coming(drift: Drift, origin: int, horizon_steps: int, decay: float) -> Iterator[Increment]:
    """Increments from a step, up to the horizon long; the next one however long, or there may be none."""
    # From the newest origin on: only shares of weights count, and at wide spacing all of them would be 0.
    age = (drift.steps[-2] - drift.steps[origin]) / _DECAY_STEPS
    return increments(drift, origin, horizon_steps, decay**age)


def increments(drift: Drift, origin: int, horizon_steps: int, weight: float) -> Iterator[Increment]:
    """The same where `weight` is that of the origin's age."""
    for end in drift.coming(origin, horizon_steps):
        steps = drift.steps[end] - drift.steps[origin]
        yield Increment(end, steps, weight * (steps / horizon_steps) ** _HORIZON_POWER)


def window_lengths(drift: Drift) -> list[int]:
    """Steps from the last checkpoint back to each earlier one, the origin included; ascending."""
    return [drift.last_step - step for step in reversed(drift.steps[:-1])]


def speeds(drift: Drift, at: int, windows: Sequence[int]) -> Tensor:
    """(drift_at - drift_{at - w}) / w for each window, (w, c + 1), as combinations of the drift's steps.

    A window that reaches past the origin is cut there: early in the run the long windows are all of the run
    so far.
    """
    rows = torch.zeros(len(windows), len(drift.steps), dtype=torch.float64)
    for row, window in zip(rows, windows, strict=True):
        begin = min(drift.nearest(drift.steps[at] - window), at - 1)
        speed = 1 / (drift.steps[at] - drift.steps[begin])
        row[at] += speed
        row[begin] -= speed
    return rows
