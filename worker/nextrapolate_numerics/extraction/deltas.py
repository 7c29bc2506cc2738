"""Differences of points, decomposed from the Gram matrices of a module's factors; of several modules at once.

A delta is a sum of spans (drift.py), and a span from point s to point e is

    dW_e - dW_s = [B_e - B_s, B_s] [A_e ; A_e - A_s]

so that blocks that nearly cancel are never multiplied. The Gram matrices of both sides are differences of
products that are there: no delta is ever put together, not even from its factors. What is done with small
matrices is done with those of g modules together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.gram import FactorGrams
from nextrapolate_numerics.series import Span

Delta = tuple[Span, ...]

_ENTRIES = 1 << 20  # of the small matrices that a CPU's thread decomposes together: 8 MB of float64
_ENTRIES_ON_GPU = 1 << 25


def points_of(delta: Delta) -> list[int]:
    """End and start of each span."""
    return [point for start, end in delta for point in (end, start) if point is not None]


def owners(deltas: Sequence[Delta], points: int, device: torch.device) -> list[Tensor]:
    """Of each point, the indices of the deltas that it is a point of."""
    found: list[list[int]] = [[] for _ in range(points)]
    for index, delta in enumerate(deltas):
        for point in set(points_of(delta)):
            found[point].append(index)
    return [torch.tensor(indices, dtype=torch.long, device=device) for indices in found]


@dataclass(frozen=True)
class Batch:
    """Deltas whose spans are alike: which of them begin at the base model.

    Attributes:
        which: their indices.
        points: (b, z) points of each, in the order of `points_of`; on the CPU.
        spans: where among the z (end, start) of the spans are that have a start.
    """

    which: list[int]
    points: Tensor
    spans: tuple[tuple[int, int], ...]

    def sides(self, grams: FactorGrams) -> tuple[Tensor, Tensor]:
        """Gram matrices of both sides of each delta, one module's after the other, (g b, z r, z r)."""
        left, right = (self._of_points(products, grams.where) for products in (grams.left, grams.right))
        for end, start in self.spans:
            left[:, end] -= left[:, start]
            left[:, :, :, end] -= left[:, :, :, start]
            torch.sub(right[:, end], right[:, start], out=right[:, start])
            torch.sub(right[:, :, :, end], right[:, :, :, start], out=right[:, :, :, start])
        return left.flatten(3).flatten(1, 2), right.flatten(3).flatten(1, 2)

    def lengths(self, grams: FactorGrams) -> Tensor:
        """The largest |b| |a| of a column of B and its row of A at a delta's points, (g b, 1).

        What lies between points is known to some 1e-8 of it, however little that is.
        """
        own = grams.where.diagonal()[self.points]
        left, right = (side.diagonal(dim1=-2, dim2=-1)[:, own] for side in (grams.left, grams.right))
        return (left * right).flatten(2).amax(dim=2).sqrt().reshape(-1, 1)

    def by_point(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """From coordinates in both sides' blocks, (g b, z r, k), to the points' factors, (g b, k, z, r)."""
        z = self.points.shape[1]
        size = (len(left), left.shape[-1], z, left.shape[1] // z)
        left, right = (side.mT.reshape(size).clone() for side in (left, right))
        for end, start in self.spans:
            left[:, :, start] -= left[:, :, end]
            right[:, :, end] += right[:, :, start]
            right[:, :, start] *= -1
        return left, right

    def among_all(self, parts: Tensor, points: int) -> Tensor:
        """From a delta's own points, (g b, k, z, r), to all points."""
        of_modules = self.points.to(parts.device).repeat(len(parts) // len(self.points), 1)
        where = of_modules[:, None, :, None].expand_as(parts)
        found: Tensor = parts.new_zeros(*parts.shape[:2], points, parts.shape[-1])
        return found.scatter_add_(2, where, parts)

    def _of_points(self, products: Tensor, where: Tensor) -> Tensor:
        """Products (g, w, r, r) of each delta's points with one another, (g b, z, r, z, r)."""
        (b, z), r = self.points.shape, products.shape[-1]
        found = products.new_empty(len(products), b, z, r, z, r)
        for one, other in product(range(z), repeat=2):
            places = _slice_where_possible(where[self.points[:, one], self.points[:, other]])
            found[:, :, one, :, other] = products[:, places]
        return found.flatten(0, 1)


def batches(deltas: Sequence[Delta], grams: FactorGrams, beside: int = 0) -> Iterator[Batch]:
    """Those of one pattern together, as many as are held at once with `beside` rows more, of all modules."""
    entries = _ENTRIES if grams.device.type == "cpu" else _ENTRIES_ON_GPU
    patterns: dict[tuple[bool, ...], list[int]] = {}
    for index, delta in enumerate(deltas):
        patterns.setdefault(tuple(start is None for start, _ in delta), []).append(index)
    for indices in patterns.values():
        spans = _positions(deltas[indices[0]])
        side = beside + len(points_of(deltas[indices[0]])) * grams.rank
        together = max(1, entries // (len(grams) * side**2))
        for begin in range(0, len(indices), together):
            which = indices[begin : begin + together]
            points = torch.tensor([points_of(deltas[index]) for index in which])
            yield Batch(which, points, spans)


def _slice_where_possible(places: Tensor) -> Tensor | slice:
    """What to index with: nothing is copied where one place lies behind the other."""
    first = int(places[0])
    if torch.equal(places, torch.arange(first, first + len(places))):
        return slice(first, first + len(places))
    return places


def _positions(delta: Delta) -> tuple[tuple[int, int], ...]:
    """Where `points_of` has the end and the start of each span that has one."""
    places = accumulate((1 if start is None else 2 for start, _ in delta), initial=0)
    return tuple((at, at + 1) for at, (start, _) in zip(places, delta, strict=False) if start is not None)
