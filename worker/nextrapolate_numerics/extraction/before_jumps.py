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

from nextrapolate_numerics.extraction.deltas import Batch, Delta, batches
from nextrapolate_numerics.extraction.gram import FactorGrams
from nextrapolate_numerics.gram_svd import Core, inverse
from nextrapolate_numerics.series import Span

_NEGLIGIBLE = 3e-6
"""Of the largest singular value: smaller ones are let go of at a jump.

Inner products in float64 know them, but not their vectors, and what is wrong with these would grow from jump
to jump.
"""
_ROUNDING = 1e-8
"""Of the product of a factor's column and row, |b| |a|: what a span's singular values are known to.

Where the drift is small beside the adapter, which a span's blocks hold too, this is more than the above.
"""


@dataclass(frozen=True)
class Done:
    """What training did in the spans until a jump, in g modules: B A of rank <= k each; float64.

    The LoRA scaling is in neither.

    Attributes:
        points: (z,) whose factors B and A are made of; on the CPU.
        left: (g, k, z r) coordinates: the columns of B are left singular vectors times their value.
        right: (g, k, z r) likewise: the rows of A are right singular vectors.
        values: (g, k) squared singular values; 0, as left and right are, past the rank of a module.
    """

    points: Tensor
    left: Tensor
    right: Tensor
    values: Tensor

    @classmethod
    def nothing(cls, grams: FactorGrams) -> Self:
        """Of rank 0."""
        none = grams.left.new_zeros(len(grams), 0, 0)
        return cls(grams.where.new_zeros(0), none, none, none.flatten(1))

    @property
    def rank(self) -> int:
        """The largest, k."""
        return self.values.shape[1]

    def and_then(self, span: Span, grams: FactorGrams) -> Self:
        """This and one more span, the smallest singular values of each module let go of."""
        (batch,) = batches([(span,)], grams)
        sides = self.sides_with(batch, grams)
        core = Core.of(*sides)
        sigma = core.values.sqrt()
        kept = sigma > torch.maximum(_NEGLIGIBLE * sigma[:, :1], _ROUNDING * self._lengths(*sides, batch))
        rank = int(kept.sum(dim=1).max())
        values = torch.where(kept, core.values, 0.0)[:, :rank]
        of_left = (core.left * kept.unsqueeze(1))[..., :rank]
        of_right = core.right[..., :rank] * inverse(values).unsqueeze(1)
        new = batch.by_point(of_left[:, self.rank :], of_right[:, self.rank :])
        left, right = (
            torch.cat([side[:, : self.rank].mT @ before, more.flatten(2)], dim=2)
            for side, before, more in zip((of_left, of_right), (self.left, self.right), new, strict=True)
        )
        return type(self)(torch.cat([self.points, batch.points[0]]), left, right, values)

    def _lengths(self, left: Tensor, right: Tensor, batch: Batch) -> Tensor:
        """The largest |b| |a| of a span's own blocks, of one column of B and row of A each, (g, 1)."""
        shape = (len(left), batch.points.shape[1], -1)
        of_left, of_right = (
            side.diagonal(dim1=1, dim2=2)[:, self.rank :].reshape(shape).amax(dim=1) for side in (left, right)
        )
        return torch.sqrt((of_left * of_right).amax(dim=1, keepdim=True))

    def sides_with(self, batch: Batch, grams: FactorGrams) -> tuple[Tensor, Tensor]:
        """Gram matrices of both sides of this and one more span each, (g b, k + q, k + q)."""
        left, right = batch.sides(grams)
        if not self.rank:
            return left, right
        with_left = self._with(batch, self.left, grams.left, grams.where)
        with_right = self._with(batch, self.right, grams.right, grams.where)
        for end, start in batch.spans:
            with_left[:, :, end] -= with_left[:, :, start]
            with_right[:, :, start] = with_right[:, :, end] - with_right[:, :, start]
        # Past a module's rank rows of A are taken for unit vectors, so that no Gram matrix of A is singular
        # for their sake: columns of B that are 0 leave nothing of them.
        return (
            _bordered(torch.diag_embed(self.values), with_left.flatten(2), left),
            _bordered(torch.diag_embed(torch.ones_like(self.values)), with_right.flatten(2), right),
        )

    def by_point(self, batch: Batch, left: Tensor, right: Tensor, points: int) -> tuple[Tensor, Tensor]:
        """From coordinates in `sides_with`, (g b, k + q, c), to all points' factors, (g b, c, p, r)."""
        new = batch.by_point(left[:, self.rank :], right[:, self.rank :])
        found = [batch.among_all(side, points) for side in new]
        if not self.rank:
            return found[0], found[1]
        for all_points, side, rows in zip(found, (left, right), (self.left, self.right), strict=True):
            before = side[:, : self.rank].mT @ rows.repeat_interleave(len(side) // len(rows), dim=0)
            all_points[:, :, self.points] += before.view_as(all_points[:, :, self.points])
        return found[0], found[1]

    def _with(self, batch: Batch, rows: Tensor, products: Tensor, where: Tensor) -> Tensor:
        """Inner products of these rows with the factors at a batch's points, (g b, k, its z, r)."""
        (b, z), r = batch.points.shape, products.shape[-1]
        places = where[self.points[:, None, None], batch.points]
        found = [
            of_rows @ of_module[places].permute(1, 2, 0, 3, 4).reshape(b, z, -1, r)
            for of_rows, of_module in zip(rows, products, strict=True)
        ]
        return torch.cat(found).transpose(1, 2).contiguous()


def _bordered(squares: Tensor, beside: Tensor, own: Tensor) -> Tensor:
    """[square, beside; beside^T, own] of (g, k, k), (g b, k, q) and (g b, q, q)."""
    squares = squares.repeat_interleave(len(own) // len(squares), dim=0)
    upper = torch.cat([squares, beside], dim=2)
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
        deltas: from one step, which need not be the origin, to one after the other.
        dones: what `done_before` tells of the last of them, or of a later one.
        grams: products of all points of a delta with one another are there.
    """
    for spans, group in groupby(enumerate(deltas), lambda item: len(item[1])):
        done = dones[spans - 1]
        indices, last = zip(*((index, delta[-1:]) for index, delta in group), strict=True)
        for batch in batches(last, grams, beside=done.rank):
            yield done, replace(batch, which=[indices[each] for each in batch.which])
