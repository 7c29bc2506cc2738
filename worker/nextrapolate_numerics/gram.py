"""Gram matrices of a module's trajectory: of its factors, from which all else is told, and of its deltas."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.stack import Stack


@dataclass(frozen=True)
class FactorGrams:
    """Inner products of the factors at p points with one another, float64, on the device.

    Ten digits are left of the difference of two checkpoints that are 1e-3 of their norm apart.

    Attributes:
        left: (p, r, p, r), left[k, :, l] = B_k^T B_l.
        right: (p, r, p, r), right[k, :, l] = A_k A_l^T.
        scaling: the LoRA scaling, which is in neither.
    """

    left: Tensor
    right: Tensor
    scaling: float

    @classmethod
    def of(cls, stack: Stack, pairs: Iterable[tuple[int, int]] | None = None) -> Self:
        """O(p^2 r^2 (m + n)): the most of an extraction's work.

        Args:
            stack: the factors.
            pairs: of points, whose products are wanted; those of others stay 0. None wants them all.
        """
        runs = list(_runs(len(stack.left), pairs))
        return cls(_products(stack.left, runs), _products(stack.right, runs), stack.scaling)


def _runs(points: int, pairs: Iterable[tuple[int, int]] | None) -> Iterator[tuple[int, int, int]]:
    """(k, l, end): the products of point k with l .. end - 1 are wanted, no l being before k."""
    if pairs is None:
        yield from ((point, point, points) for point in range(points))
        return
    wanted = sorted({(min(pair), max(pair)) for pair in pairs})
    for _, run in groupby(enumerate(wanted), lambda item: (item[1][0], item[1][1] - item[0])):
        found = [pair for _, pair in run]
        yield found[0][0], found[0][1], found[-1][1] + 1


def _products(side: Tensor, runs: Sequence[tuple[int, int, int]]) -> Tensor:
    """Inner products of rows of (p, r, d), (p, r, p, r): the runs, and mirrored."""
    points, rank, _ = side.shape
    products = side.new_zeros(points, rank, points, rank)
    for point, begin, end in runs:
        found = side[begin:end] @ side[point].mT
        products[begin:end, :, point] = found
        products[point, :, begin:end] = found.permute(2, 0, 1)
    return products


def gram(factors: FactorGrams) -> Tensor:
    """G[k, l] = <dW_k, dW_l> = s^2 tr((B_k^T B_l)(A_l A_k^T)) over the points, (p, p) float64 on the CPU."""
    rows = [(left * right).sum(dim=(0, 2)) for left, right in zip(factors.left, factors.right, strict=True)]
    return factors.scaling**2 * torch.stack(rows).cpu()


def summed(grams: Mapping[str, Tensor]) -> Tensor:
    """The Gram matrix of all modules together, (p, p): that of their deltas as one vector."""
    return torch.stack([grams[name] for name in sorted(grams)]).sum(dim=0)
