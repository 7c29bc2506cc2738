"""Which products of points' factors are held at a time: all where they are few, else one window of steps'.

The products of p points with one another are p^2 r^2 numbers a side of a module. Deltas need few of them:
those of their own points, and where parts are learnt from, those with the points that came within a horizon.
Where all would take too much memory, the steps are looked at in windows, each with the products that its
deltas need. Of the other pairs one number each is kept, the inner product of the two points' deltas. A module
is widened once more for each window, and nearly all products are still made once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.deltas import points_of
from nextrapolate_numerics.extraction.extraction import Evidence
from nextrapolate_numerics.extraction.gram import Pairs
from nextrapolate_numerics.extraction.parts import increments
from nextrapolate_numerics.extraction.triples import seen_deltas
from nextrapolate_numerics.series import Drift

_Crossing = tuple[Sequence[int], Sequence[int]]
"""Points whose factors are multiplied with those of others."""


@dataclass(frozen=True)
class Window:
    """Steps whose deltas are looked at together.

    Attributes:
        steps: their indices in the drift.
        pairs: of points, whose products are held.
    """

    steps: range
    pairs: Pairs


@dataclass(frozen=True)
class Windows:
    """All steps after the origin.

    Attributes:
        windows: in the order of the steps. The last one has the products of all points of the last global
            delta with one another.
        others: (o, 2) pairs that no window holds, some at a time; none where inner products are not wanted.
    """

    windows: tuple[Window, ...]
    others: tuple[Tensor, ...]

    @classmethod
    def of(cls, drift: Drift, evidence: Evidence, horizon_steps: int, most: int) -> Self:
        """Plan what is held.

        One window has all steps, unless that were more than `most` pairs, and unless several windows would
        have more products made than twice those that there are.

        Args:
            drift: all of it.
            evidence: that is wanted.
            horizon_steps: how far ahead methods are asked.
            most: pairs that may be held at a time; those of a last delta of many spans may be more.
        """
        needs = _Needs(drift, evidence, drift.longest(horizon_steps), drift.pairs(horizon_steps))
        steps = range(1, len(drift.steps))
        every = needs.at_all(steps)
        held = [(steps, every)]
        if int(every.sum()) > most:
            several = needs.in_windows(steps, most)
            if sum(int(mask.sum()) for _, mask in several) <= int(every.sum()):
                held = several
        windows = tuple(Window(some, _pairs(mask)) for some, mask in held)
        others = every & ~torch.stack([mask for _, mask in held]).any(dim=0) & evidence.gram
        return cls(windows, _by_distance(others, most))

    @property
    def most_held(self) -> int:
        """Of how many pairs of points the products are held at a time."""
        of_windows = [len(window.pairs.kept) for window in self.windows]
        return max([*of_windows, *map(len, self.others)])


@dataclass(frozen=True)
class _Needs:
    """Which products the deltas that end at a step are told from: (p, p) masks, symmetric."""

    drift: Drift
    evidence: Evidence
    longest: int
    pairs: tuple[tuple[int, int], ...]

    def in_windows(self, steps: range, most: int) -> list[tuple[range, Tensor]]:
        """Windows that hold no more than `most` pairs, or one step, or the last global delta; in order."""
        held = self._mask([self._last_global(steps)])
        most = max(most, int(held.sum()))
        found: list[tuple[range, Tensor]] = []
        end = steps.stop
        for at in reversed(steps):
            needed = self._mask(self._crossings(at))
            if int((held | needed).sum()) > most and at + 1 < end:
                found.append((range(at + 1, end), held))
                held, end = torch.zeros_like(held), at + 1
            held = held | needed
        found.append((range(steps.start, end), held))
        return found[::-1]

    def at_all(self, steps: range) -> Tensor:
        """Of all deltas that end at some steps, and of all points where what lies between them is wanted."""
        if self.evidence.gram or self.evidence.parts:
            return torch.ones(self.drift.points, self.drift.points, dtype=torch.bool)
        of_steps = (crossing for at in steps for crossing in self._crossings(at))
        return self._mask([self._last_global(steps), *of_steps])

    def _crossings(self, at: int) -> Iterator[_Crossing]:
        """Of the deltas that end at one step, where what was done before their last spans is known."""
        whole = self.drift.spans(0, at)
        yield points_of(whole[-1:]), points_of(whole)
        for delta in seen_deltas(self.drift, range(at, at + 1), self.pairs, self.evidence.triples)[1:]:
            yield points_of(delta), points_of(delta)
        if self.evidence.parts:
            own = [point for delta in increments(self.drift, at) for point in points_of(delta)]
            yield own, own + self._coming(at)

    def _last_global(self, steps: range) -> _Crossing:
        """Of the delta whose spans are decomposed one after the other."""
        points = points_of(self.drift.spans(0, steps[-1]))
        return points, points

    def _coming(self, at: int) -> list[int]:
        """Points of the increments that a method learns to foretell at a step."""
        coefficients, ends = self.drift.coefficients, list(self.drift.coming(at, self.longest))
        found: list[int] = (coefficients[ends] - coefficients[at]).any(dim=0).nonzero().flatten().tolist()
        return found

    def _mask(self, crossings: Iterable[_Crossing]) -> Tensor:
        """Products of some points with others, and their mirrors."""
        pairs = [pair for some, others in crossings for pair in product(some, others)]
        mask = torch.zeros(self.drift.points, self.drift.points, dtype=torch.bool)
        mask[tuple(torch.tensor(pairs).T)] = True
        return mask | mask.T


def _pairs(mask: Tensor) -> Pairs:
    return Pairs.of(len(mask), None if mask.all() else mask.nonzero().tolist())


def _by_distance(mask: Tensor, together: int) -> tuple[Tensor, ...]:
    """Each pair of a symmetric mask in one order, those equally far apart side by side; so many at a time."""
    pairs = mask.tril().nonzero()
    ordered = pairs[(len(mask) * (pairs[:, 0] - pairs[:, 1]) + pairs[:, 1]).argsort()]
    return torch.split(ordered, together) if len(ordered) else ()
