"""Gram matrices of a module's trajectory: of its factors, from which all else is told, and of its deltas."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.stack import Side, Stack


@dataclass(frozen=True)
class Pairs:
    """Pairs of points whose factors are multiplied, and where their products are kept.

    Attributes:
        runs: (apart, begin, end): the pairs (k + apart, k) for begin <= k < end. Those of points with
            themselves come first.
        where: (p, p) place of the product of each two points, in both orders; -1 where there is none.
    """

    runs: tuple[tuple[int, int, int], ...]
    where: Tensor

    @classmethod
    def of(cls, points: int, wanted: Iterable[tuple[int, int]] | None = None) -> Self:
        """The pairs that are wanted, in either order; None wants them all."""
        if wanted is None:
            runs = [(apart, 0, points - apart) for apart in range(points)]
        else:
            runs = list(_runs({(abs(one - other), min(one, other)) for one, other in wanted}))
        kept = [(begin + apart, begin) for apart, first, end in runs for begin in range(first, end)]
        kept += [(begin, end) for end, begin in kept if begin != end]
        where = torch.full((points, points), -1)
        where[tuple(torch.tensor(kept).T)] = torch.arange(len(kept))
        return cls(tuple(runs), where)


def _runs(pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Of (apart, begin), those that lie one after the other."""
    for (apart, _), run in groupby(enumerate(sorted(pairs)), lambda item: (item[1][0], item[1][1] - item[0])):
        begins = [begin for _, (_, begin) in run]
        yield apart, begins[0], begins[-1] + 1


@dataclass(frozen=True)
class FactorGrams:
    """Inner products of the factors at p points with one another, float64, on the device.

    Ten digits are left of the difference of two checkpoints that are 1e-3 of their norm apart.

    Attributes:
        left: (w, r, r), B_k^T B_l in the place of (k, l).
        right: (w, r, r), A_k A_l^T likewise.
        left_sums: (p, r), 1^T B_k; (0, r) where sums were not wanted.
        right_sums: likewise, A_k 1.
        where: (p, p) the place of each pair; -1 where its product was not wanted.
        scaling: the LoRA scaling, which is in neither.
    """

    left: Tensor
    right: Tensor
    left_sums: Tensor
    right_sums: Tensor
    where: Tensor
    scaling: float

    @classmethod
    def of(cls, stack: Stack, pairs: Pairs, *, sums: bool = False) -> Self:
        """O(w r^2 (m + n)): the most of an extraction's work."""
        (left, left_sums), (right, right_sums) = (
            _products(side, pairs, sums=sums) for side in (stack.left, stack.right)
        )
        return cls(left, right, left_sums, right_sums, pairs.where.to(left.device), stack.scaling)

    @property
    def bytes(self) -> int:
        """What it takes up."""
        return self.left.nbytes + self.right.nbytes

    def broken_points(self) -> list[int]:
        """Points whose factors hold NaN or Inf; of those that were multiplied with themselves.

        A row with one of them has no finite length, and others have: no float32 has a square that is Inf in
        float64.
        """
        own = self.where.diagonal()
        left, right = (side.diagonal(dim1=1, dim2=2)[own].sum(dim=1) for side in (self.left, self.right))
        broken: list[int] = ((own >= 0) & ~torch.isfinite(left + right)).nonzero().flatten().tolist()
        return broken


def _products(side: Side, pairs: Pairs, *, sums: bool) -> tuple[Tensor, Tensor]:
    """(w, r, r): each pair is multiplied in one order, and mirrored; and the sums over d, (p, r)."""
    sizes = [end - begin for _, begin, end in pairs.runs]
    mirrored = [size for size, (apart, _, _) in zip(sizes, pairs.runs, strict=True) if apart]
    products = torch.zeros(
        sum(sizes) + sum(mirrored), side.rank, side.rank, dtype=torch.float64, device=side.device
    )
    runs = products.split([*sizes, *mirrored])  # type: ignore[no-untyped-call]
    runs, mirrors = runs[: len(sizes)], runs[len(sizes) :]
    total = products.new_zeros(len(side) if sums else 0, side.rank)
    tile = side.tile()
    factors = [(tile[begin + apart : end + apart], tile[begin:end].mT) for apart, begin, end in pairs.runs]
    for _ in side.widened(tile):
        if sums:
            total += tile.sum(dim=-1)
        for run, (one, other) in zip(runs, factors, strict=True):
            torch.baddbmm(run, one, other, out=run)
    for mirror, run in zip(mirrors, runs[len(runs) - len(mirrors) :], strict=True):
        mirror.copy_(run.mT)
    return products, total


def gram(factors: FactorGrams) -> Tensor:
    """G[k, l] = <dW_k, dW_l> = s^2 tr((B_k^T B_l)(A_l A_k^T)) over the points, (p, p) float64 on the CPU."""
    inner = (factors.left * factors.right).sum(dim=(1, 2))
    return (factors.scaling**2 * inner[factors.where]).cpu()


def entry_sums(factors: FactorGrams) -> Tensor:
    """The sum of all entries of each point's delta, s (1^T B_k)(A_k 1), (p,) float64 on the CPU."""
    return factors.scaling * (factors.left_sums * factors.right_sums).sum(dim=1).cpu()


def summed(grams: Mapping[str, Tensor]) -> Tensor:
    """The Gram matrix of all modules together, (p, p): that of their deltas as one vector."""
    return torch.stack([grams[name] for name in sorted(grams)]).sum(dim=0)
