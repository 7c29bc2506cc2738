"""What training had done until a run's last jump: the same matrix in every global delta after it.

After j jumps a global delta is a sum of j + 1 spans, and decomposing it as it stands costs as the cube of j.
All spans but the last are decomposed once instead, jump after jump, and go on as their own leading triples,
whose number does not grow with the jumps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.core import Core
from nextrapolate_numerics.deltas import Batch, Delta, batches
from nextrapolate_numerics.drift import Span
from nextrapolate_numerics.gram import FactorGrams

_NEGLIGIBLE = 3e-6
"""Of the largest singular value: smaller ones are let go of at a jump.

Inner products in float64 know them, but not their vectors, and what is wrong with these would grow from jump
to jump.
"""


@dataclass(frozen=True)
class Done:
    """What training did in the spans until a jump: B A of rank k, the LoRA scaling left out; float64.

    Attributes:
        points: (z,) whose factors B and A are made of.
        left: (k, z r) coordinates: the columns of B are left singular vectors times their value.
        right: (k, z r) likewise: the rows of A are right singular vectors.
        values: (k,) squared singular values.
    """

    points: Tensor
    left: Tensor
    right: Tensor
    values: Tensor

    @classmethod
    def nothing(cls, grams: FactorGrams) -> Self:
        """Of rank 0."""
        none = grams.left.new_zeros(0, 0)
        return cls(grams.where.new_zeros(0), none, none, grams.left.new_zeros(0))

    def and_then(self, span: Span, grams: FactorGrams) -> Self:
        """This and one more span, its smallest singular values let go of."""
        (batch,) = batches([(span,)], grams)
        left, right = self.sides_with(batch, grams)
        core = Core.of(left[0], right[0])
        sigma = core.values.sqrt()
        kept = int((sigma > _NEGLIGIBLE * sigma[0]).sum())
        values, own = core.values[:kept], len(self.values)
        of_left, of_right = core.left[:, :kept], core.right[:, :kept] / values
        new_left, new_right = batch.by_point(of_left[own:].unsqueeze(0), of_right[own:].unsqueeze(0))
        return type(self)(
            torch.cat([self.points, batch.points[0]]),
            torch.cat([of_left[:own].mT @ self.left, new_left[0].flatten(1)], dim=1),
            torch.cat([of_right[:own].mT @ self.right, new_right[0].flatten(1)], dim=1),
            values,
        )

    def sides_with(self, batch: Batch, grams: FactorGrams) -> tuple[Tensor, Tensor]:
        """Gram matrices of both sides of this and one more span each, (b, k + q, k + q)."""
        left, right = batch.sides(grams)
        if not len(self.values):
            return left, right
        with_left = self._with(batch, self.left, grams.left, grams.where)
        with_right = self._with(batch, self.right, grams.right, grams.where)
        for end, start in batch.spans:
            with_left[:, :, end] -= with_left[:, :, start]
            with_right[:, :, start] = with_right[:, :, end] - with_right[:, :, start]
        return (
            _bordered(torch.diag(self.values), with_left.flatten(2), left),
            _bordered(torch.diag(torch.ones_like(self.values)), with_right.flatten(2), right),
        )

    def by_point(self, batch: Batch, left: Tensor, right: Tensor, points: int) -> tuple[Tensor, Tensor]:
        """From coordinates in `sides_with`, (b, k + q, c), to all points' factors, (b, c, p, r)."""
        own = len(self.values)
        found = [batch.among_all(side, points) for side in batch.by_point(left[:, own:], right[:, own:])]
        for all_points, side, rows in zip(found, (left, right), (self.left, self.right), strict=True):
            before = side[:, :own].mT @ rows
            all_points[:, :, self.points] += before.view_as(all_points[:, :, self.points])
        return found[0], found[1]

    def _with(self, batch: Batch, rows: Tensor, products: Tensor, where: Tensor) -> Tensor:
        """Inner products of these rows with the factors at a batch's points, (b, k, its z, r)."""
        (b, z), r = batch.points.shape, products.shape[-1]
        found = products[where[self.points[:, None, None], batch.points]]
        return (rows @ found.permute(1, 2, 0, 3, 4).reshape(b, z, -1, r)).transpose(1, 2).contiguous()


def _bordered(square: Tensor, beside: Tensor, own: Tensor) -> Tensor:
    """[square, beside; beside^T, own] of (k, k), (b, k, q) and (b, q, q)."""
    upper = torch.cat([square.expand(len(own), -1, -1), beside], dim=2)
    return torch.cat([upper, torch.cat([beside.mT, own], dim=2)], dim=1)


def done_before(delta: Delta, grams: FactorGrams) -> list[Done]:
    """What had been done before each span of a delta, nothing before the first."""
    nothing = Done.nothing(grams)
    return list(accumulate(delta[:-1], lambda done, span: done.and_then(span, grams), initial=nothing))


def by_last_spans(
    deltas: Sequence[Delta], dones: Sequence[Done], grams: FactorGrams
) -> Iterator[tuple[Done, Batch]]:
    """What had been done, and the last spans of the deltas that go on from there.

    Args:
        deltas: from one origin to one step after the other.
        dones: what `done_before` tells of the last of them, or of a later one.
        grams: of one module; products of all points of a delta with one another are there.
    """
    for spans, group in groupby(enumerate(deltas), lambda item: len(item[1])):
        done = dones[spans - 1]
        indices, last = zip(*((index, delta[-1:]) for index, delta in group), strict=True)
        for batch in batches(last, grams, beside=len(done.values)):
            yield done, replace(batch, which=[indices[each] for each in batch.which])
