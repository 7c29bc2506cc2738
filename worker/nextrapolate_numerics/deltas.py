"""Differences of a module's points, decomposed from the Gram matrices of its factors.

A delta is a sum of spans (drift.py), and a span from point s to point e is

    dW_e - dW_s = [B_e - B_s, B_s] [A_e ; A_e - A_s]

so that blocks that nearly cancel are never multiplied. The Gram matrices of both sides are sums of blocks
that are there: no delta is ever put together, not even from its factors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nextrapolate_numerics.core import Core
from nextrapolate_numerics.drift import Span
from nextrapolate_numerics.gram import FactorGrams

Delta = tuple[Span, ...]

_ENTRIES = 1 << 22  # of the small matrices that are decomposed together: 32 MB of float64


@dataclass(frozen=True)
class StackedTriples:
    """Leading triples in the coordinates of a module's stack, the LoRA scaling left out; float64.

    Attributes:
        sigma: (b, k), descending.
        u: (b, k, p, r): the singular vector is the sum over points of u[.., p] @ stack.left[p].
        v: (b, k, p, r), likewise of stack.right. Both are 0 where sigma is.
    """

    sigma: Tensor
    u: Tensor
    v: Tensor


def points_of(delta: Delta) -> list[int]:
    """End and start of each span."""
    return [point for start, end in delta for point in (end, start) if point is not None]


def leading_triples(grams: FactorGrams, deltas: Sequence[Delta], count: int) -> StackedTriples:
    """The `count` leading triples of each delta; where it has fewer, the others are 0."""
    sigma = grams.left.new_zeros(len(deltas), count)
    u, v = (grams.left.new_zeros(*sigma.shape, *grams.left.shape[2:]) for _ in range(2))
    for batch in _batches(deltas, grams):
        core = Core.leading(*batch.sides(grams), count)
        values = core.values.sqrt()
        found = values.shape[-1]
        inverse = torch.where(values > 0, values, torch.inf).reciprocal().unsqueeze(-2)
        sigma[batch.which, :found] = values
        u[batch.which, :found] = batch.by_point(core.left * inverse, batch.left)
        v[batch.which, :found] = batch.by_point(core.right * inverse**2, batch.right)
    return StackedTriples(sigma, u, v)


def spectra(grams: FactorGrams, deltas: Sequence[Delta]) -> list[Tensor]:
    """All singular values of each delta, (q,) descending, float64 on the CPU, LoRA scaling included."""
    found: list[Tensor] = [torch.empty(0)] * len(deltas)
    for batch in _batches(deltas, grams):
        values = grams.scaling * Core.spectrum(*batch.sides(grams)).cpu()
        for index, each in zip(batch.which, values, strict=True):
            found[index] = each
    return found


@dataclass(frozen=True)
class _Batch:
    """Deltas that are sums of as many points.

    Attributes:
        which: their indices.
        points: (b, z) indices of the points of each.
        all_points: p.
        left: (z, z) the blocks of columns of a delta's left side, as combinations of the points' B.
        right: (z, z) the blocks of rows of its right side, likewise of A.
    """

    which: list[int]
    points: Tensor
    all_points: int
    left: Tensor
    right: Tensor

    def sides(self, grams: FactorGrams) -> tuple[Tensor, Tensor]:
        """Gram matrices of both sides of each delta, (b, z r, z r)."""
        return self._congruent(self.left, grams.left), self._congruent(self.right, grams.right)

    def by_point(self, vectors: Tensor, blocks: Tensor) -> Tensor:
        """From coordinates in a side's blocks (b, z r, k) to those in the points' factors, (b, k, p, r)."""
        b, _, k = vectors.shape
        parts = blocks.mT @ vectors.mT.reshape(b, k, len(blocks), -1)
        r = parts.shape[-1]
        where = self.points[:, None, :, None].expand(b, k, -1, r)
        found: Tensor = parts.new_zeros(b, k, self.all_points, r).scatter_add_(2, where, parts)
        return found

    def _congruent(self, blocks: Tensor, products: Tensor) -> Tensor:
        """From inner products of all points, (p, r, p, r), to those of each delta's blocks."""
        b, z = self.points.shape
        r = products.shape[1]
        pairs = products.transpose(1, 2)  # (p, p, r, r)
        found = pairs[self.points.unsqueeze(2), self.points.unsqueeze(1)]
        found = blocks @ (blocks @ found.view(b, z, -1)).view(b * z, z, -1)
        sides: Tensor = found.view(b, z, z, r, r).transpose(2, 3).reshape(b, z * r, z * r)
        return sides


def _batches(deltas: Sequence[Delta], grams: FactorGrams) -> Iterator[_Batch]:
    """Those of one pattern together, as many as are held at once."""
    device, rank = grams.left.device, grams.left.shape[-1]
    patterns: dict[tuple[bool, ...], list[int]] = {}
    for index, delta in enumerate(deltas):
        patterns.setdefault(tuple(start is None for start, _ in delta), []).append(index)
    for pattern, indices in patterns.items():
        left, right = (_side(pattern, span).to(device) for span in (_LEFT, _RIGHT))
        together = max(1, _ENTRIES // (len(left) * rank) ** 2)
        for begin in range(0, len(indices), together):
            which = indices[begin : begin + together]
            points = [points_of(deltas[index]) for index in which]
            yield _Batch(which, torch.tensor(points, device=device), len(grams.left), left, right)


# The blocks of a span's sides as combinations of its points e and s; from the base model there is e alone.
_LEFT = torch.tensor([[1.0, -1.0], [0.0, 1.0]], dtype=torch.float64)
_RIGHT = torch.tensor([[1.0, 0.0], [1.0, -1.0]], dtype=torch.float64)


def _side(pattern: Sequence[bool], span: Tensor) -> Tensor:
    """The blocks of all spans of a delta, (z, z)."""
    blocks: Tensor = torch.block_diag(*(span[:1, :1] if from_base else span for from_base in pattern))  # type: ignore[no-untyped-call]
    return blocks
