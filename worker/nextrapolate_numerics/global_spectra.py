"""Singular values of the global delta, step after step of a run.

After j jumps it is a sum of j + 1 spans, and decomposing it as it stands costs as the cube of j. What
training had done until the last jump is the same matrix for all steps after it. It is decomposed once, and
goes on as its own leading triples, whose number does not grow with the jumps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.core import Core
from nextrapolate_numerics.deltas import Batch, Delta, batches
from nextrapolate_numerics.drift import Span
from nextrapolate_numerics.gram import FactorGrams

_NEGLIGIBLE = 1e-6
"""Share of the sum of all singular values that is let go of at a jump, at most."""


def global_spectra(grams: FactorGrams, deltas: Sequence[Delta]) -> list[Tensor]:
    """Singular values of each delta, descending, float64 on the CPU, LoRA scaling included.

    Args:
        grams: of one module; products of all points of a delta with one another are there.
        deltas: from one origin to one step after the other.

    Returns:
        All values of a delta of one span. Of others those that make up all but 1e-6 of the sum a jump.
    """
    found: list[Tensor] = []
    done = _Done.nothing(grams)
    for before, group in groupby(deltas, lambda delta: delta[:-1]):
        for span in before[done.spans :]:
            done = done.and_then(span, grams)
        for batch in batches([delta[-1:] for delta in group], grams, len(done.left)):
            found += (grams.scaling * Core.spectrum(*done.sides_with(batch, grams))).cpu()
    return found


@dataclass(frozen=True)
class _Done:
    """What training did in the spans until a jump: B A of rank k, the LoRA scaling left out; float64.

    Attributes:
        spans: how many.
        points: (z,) whose factors B and A are made of.
        left: (k, z r) coordinates: the columns of B are left singular vectors times their value.
        right: (k, z r) likewise: the rows of A are right singular vectors.
        values: (k,) squared singular values.
    """

    spans: int
    points: Tensor
    left: Tensor
    right: Tensor
    values: Tensor

    @classmethod
    def nothing(cls, grams: FactorGrams) -> Self:
        """Of rank 0."""
        none = grams.left.new_zeros(0, 0)
        return cls(0, grams.where.new_zeros(0), none, none, none[0:0, 0:0].flatten())

    def and_then(self, span: Span, grams: FactorGrams) -> Self:
        """This and one more span, its smallest singular values let go of."""
        (batch,) = batches([(span,)], grams)
        left, right = self.sides_with(batch, grams)
        core = Core.of(left[0], right[0])
        sigma = core.values.sqrt()
        remaining = sigma.flip(0).cumsum(0).flip(0)
        kept = int((remaining > _NEGLIGIBLE * sigma.sum()).sum())
        values, own = core.values[:kept], len(self.values)
        of_left, of_right = core.left[:, :kept], core.right[:, :kept] / values
        new_left, new_right = batch.by_point(of_left[own:].unsqueeze(0), of_right[own:].unsqueeze(0))
        return type(self)(
            self.spans + 1,
            torch.cat([self.points, batch.points[0]]),
            torch.cat([of_left[:own].mT @ self.left, new_left[0].flatten(1)], dim=1),
            torch.cat([of_right[:own].mT @ self.right, new_right[0].flatten(1)], dim=1),
            values,
        )

    def sides_with(self, batch: Batch, grams: FactorGrams) -> tuple[Tensor, Tensor]:
        """Gram matrices of both sides of this and one more span each, (b, k + q, k + q)."""
        left, right = batch.sides(grams)
        with_left = self._with(batch, self.left, grams.left, grams.where)
        with_right = self._with(batch, self.right, grams.right, grams.where)
        for end, start in batch.spans:
            with_left[:, :, end] -= with_left[:, :, start]
            with_right[:, :, start] = with_right[:, :, end] - with_right[:, :, start]
        return (
            _bordered(torch.diag(self.values), with_left.flatten(2), left),
            _bordered(torch.diag(torch.ones_like(self.values)), with_right.flatten(2), right),
        )

    def _with(self, batch: Batch, rows: Tensor, products: Tensor, where: Tensor) -> Tensor:
        """Inner products of these rows with the factors at a batch's points, (b, k, its z, r)."""
        (b, z), r = batch.points.shape, products.shape[-1]
        found = products[where[self.points[:, None, None], batch.points]]
        return (rows @ found.permute(1, 2, 0, 3, 4).reshape(b, z, -1, r)).transpose(1, 2).contiguous()


def _bordered(square: Tensor, beside: Tensor, own: Tensor) -> Tensor:
    """[square, beside; beside^T, own] of (k, k), (b, k, q) and (b, q, q)."""
    upper = torch.cat([square.expand(len(own), -1, -1), beside], dim=2)
    return torch.cat([upper, torch.cat([beside.mT, own], dim=2)], dim=1)
