"""Gram matrices of a trajectory: of modules' factors, from which all else is told, and of their deltas."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.gram_svd import ROUNDING


@dataclass(frozen=True)
class Pairs:
    """Pairs of points whose factors are multiplied, and where their products are kept.

    Attributes:
        runs: (apart, begin, end): the pairs (k + apart, k) for begin <= k < end. Those of points with
            themselves come first.
        kept: (w, 2) the two points of each place: the runs one after the other, then their mirrors if any.
        where: (p, p) place of the product of each two points, in both orders; -1 where there is none. Without
            mirrors both orders have one place, which does for what is symmetric.
        mirrored: whether mirrors are kept.
    """

    runs: tuple[tuple[int, int, int], ...]
    kept: Tensor
    where: Tensor
    mirrored: bool

    @classmethod
    def of(
        cls, points: int, wanted: Iterable[tuple[int, int]] | None = None, *, mirrored: bool = True
    ) -> Self:
        """The pairs that are wanted, in either order; None wants them all."""
        if wanted is None:
            runs = [(apart, 0, points - apart) for apart in range(points)]
        else:
            runs = list(_runs({(abs(one - other), min(one, other)) for one, other in wanted}))
        pairs = [(begin + apart, begin) for apart, first, end in runs for begin in range(first, end)]
        one_way = torch.tensor(pairs)
        mirrors = one_way[one_way[:, 0] != one_way[:, 1]].flip(1)
        kept = torch.cat([one_way, mirrors]) if mirrored else one_way
        where = torch.full((points, points), -1)
        for ways in (one_way.flip(1), kept):
            where[tuple(ways.T)] = torch.arange(len(ways))
        return cls(tuple(runs), kept, where, mirrored)

    @property
    def every(self) -> bool:
        """Whether all points are multiplied with all, and all products kept."""
        return len(self.kept) == self.where.numel()


def _runs(pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Of (apart, begin), those that lie one after the other."""
    for (apart, _), run in groupby(enumerate(sorted(pairs)), lambda item: (item[1][0], item[1][1] - item[0])):
        begins = [begin for _, (_, begin) in run]
        yield apart, begins[0], begins[-1] + 1


@dataclass(frozen=True)
class FactorGrams:
    """Inner products of the factors of g modules at p points with one another, float64, on the device.

    Ten digits are left of the difference of two checkpoints that are 1e-3 of their norm apart.

    Attributes:
        left: (g, w, r, r), B_k^T B_l in the place of (k, l).
        right: (g, w, r, r), A_k A_l^T likewise.
        left_sums: (g, p, r), 1^T B_k; (g, 0, r) where sums were not wanted.
        right_sums: likewise, A_k 1.
        where: (p, p) the place of each pair, on the CPU (`Pairs`); -1 where its product was not wanted.
        scaling: (g,) the LoRA scalings, which are in neither.
    """

    left: Tensor
    right: Tensor
    left_sums: Tensor
    right_sums: Tensor
    where: Tensor
    scaling: Tensor

    @classmethod
    def zeros(
        cls, scalings: Sequence[float], rank: int, pairs: Pairs, device: torch.device, *, sums: bool
    ) -> Self:
        """Room for the products of modules of one rank.

        Args:
            scalings: of the modules.
            rank: r.
            pairs: of points whose products are wanted.
            device: where they are to be.
            sums: whether sums of entries are wanted.
        """
        scaling = torch.tensor(scalings, dtype=torch.float64, device=device)
        left, right = scaling.new_zeros(2, len(scalings), len(pairs.kept), rank, rank)
        points = len(pairs.where) if sums else 0
        left_sums, right_sums = scaling.new_zeros(2, len(scalings), points, rank)
        return cls(left, right, left_sums, right_sums, pairs.where, scaling)

    def __len__(self) -> int:
        return len(self.left)

    @property
    def rank(self) -> int:
        """Of the modules, r."""
        return self.left.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the products are."""
        return self.left.device

    def broken_points(self) -> list[tuple[int, int]]:
        """(module, point) whose factors hold NaN or Inf; of points that were multiplied with themselves.

        A row with one of them has no finite length, and others have: no float32 has a square that is Inf in
        float64.
        """
        own = self.where.diagonal()
        left, right = (side.diagonal(dim1=2, dim2=3)[:, own].sum(dim=2) for side in (self.left, self.right))
        broken: list[tuple[int, int]] = ((own >= 0) & ~(left + right).isfinite().cpu()).nonzero().tolist()
        return broken


def gram(factors: FactorGrams) -> Tensor:
    """G[k, l] = <dW_k, dW_l> = s^2 tr((B_k^T B_l)(A_l A_k^T)), (g, p, p) float64 on the CPU.

    0 where the product of two points was not wanted.
    """
    inner = torch.einsum("gwrs,gwrs->gw", factors.left, factors.right)
    found = (factors.scaling.unsqueeze(1) ** 2 * inner).cpu()[:, factors.where]
    return torch.where(factors.where >= 0, found, 0.0)


def entry_sums(factors: FactorGrams) -> Tensor:
    """The sum of all entries of each point's delta, s (1^T B_k)(A_k 1), (g, p) float64 on the CPU."""
    return (factors.scaling.unsqueeze(1) * (factors.left_sums * factors.right_sums).sum(dim=2)).cpu()


def squared_norm(weights: Tensor, gram: Tensor) -> float:
    """|sum_k weights[k] dW_k|^2 from a Gram matrix; weights (p,), gram (p, p) float64.

    0 where inner products do not tell it from 0, as of a module that rested between two points.
    """
    found = float(weights @ gram @ weights)
    lengths = float(weights.abs() @ gram.diagonal().clamp(min=0).sqrt())
    return found if found > (ROUNDING * lengths) ** 2 else 0.0


def summed(grams: Mapping[str, Tensor]) -> Tensor:
    """The Gram matrix of all modules together, (p, p): that of their deltas as one vector; one at least."""
    first, *others = sorted(grams)
    total = grams[first].clone()
    for name in others:  # and not of a stack, which of many checkpoints would be large
        total += grams[name]
    return total
