"""Modules as a GPU works on them: those of one shape together, since it minds calls more than operations."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.deltas import Delta
from nextrapolate_numerics.extraction.gram import FactorGrams, Pairs


@dataclass(frozen=True)
class SentModule:
    """One module at p points: dW_k = scaling B_k A_k.

    Attributes:
        B: (p, m, r) float32 on the device.
        A: (p, r, n) likewise.
        scaling: the LoRA scaling, which is in neither.
    """

    B: Tensor
    A: Tensor
    scaling: float

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.B.shape[1], self.A.shape[2]


@dataclass(frozen=True)
class Block:
    """Modules of one shape and rank, g of them at p points.

    Attributes:
        left: B^T of each at all points, (g, p, r, m) float64.
        right: A likewise, (g, p, r, n).
    """

    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, modules: Sequence[SentModule]) -> Self:
        """Factors side by side, widened."""
        left, right = (
            like.new_empty(len(modules), *like.shape, dtype=torch.float64)
            for like in (modules[0].B.mT, modules[0].A)
        )
        for module, of_left, of_right in zip(modules, left, right, strict=True):
            of_left.copy_(module.B.mT)
            of_right.copy_(module.A)
        return cls(left, right)

    def __len__(self) -> int:
        return len(self.left)


@dataclass(frozen=True)
class SentGroup:
    """Modules of one rank, block after block (`Group`).

    Attributes:
        names: of them, in the order of the blocks.
        blocks: one at least.
        scalings: in the order of the names.
    """

    names: tuple[str, ...]
    blocks: tuple[Block, ...]
    scalings: tuple[float, ...]

    @classmethod
    def of(cls, members: Iterable[tuple[str, SentModule]]) -> Self:
        """From each one's name and factors; there may be none."""
        ordered = sorted(members, key=lambda member: member[1].shape)
        blocks = [
            Block.of([module for _, module in some]) for _, some in groupby(ordered, lambda it: it[1].shape)
        ]
        names, scalings = [name for name, _ in ordered], [module.scaling for _, module in ordered]
        return cls(tuple(names), tuple(blocks), tuple(scalings))

    @property
    def entries(self) -> list[int]:
        """Of each one's delta, m n."""
        return [each.left.shape[-1] * each.right.shape[-1] for each in self.blocks for _ in range(len(each))]

    def multiplied(self, pairs: Pairs, *, sums: bool = False) -> FactorGrams:
        """Inner products of the factors at all points, of which those of the pairs are kept."""
        like = self.blocks[0].left
        grams = FactorGrams.zeros(self.scalings, like.shape[2], pairs, like.device, sums=sums)
        kept = pairs.kept.to(like.device).T
        for which, block in self._places():
            multiply(block.left, kept, grams.left[which], grams.left_sums[which])
            multiply(block.right, kept, grams.right[which], grams.right_sums[which])
        return grams

    def combined(self, u: Tensor, v: Tensor, deltas: Sequence[Delta]) -> Iterator[tuple[Tensor, Tensor]]:
        """Vectors (g, b, m) and (g, b, n) of one block after the other; points of no delta count as 0."""
        for which, block in self._places():
            yield combined(u[which], block.left), combined(v[which], block.right)

    def used_on(self, stream: torch.cuda.Stream) -> None:
        """Its memory is not used again before this stream has done what it is given until then."""
        for block in self.blocks:
            block.left.record_stream(stream)
            block.right.record_stream(stream)

    def _places(self) -> Iterator[tuple[slice, Block]]:
        begin = 0
        for block in self.blocks:
            yield slice(begin, begin := begin + len(block)), block


def multiply(rows: Tensor, kept: Tensor, products: Tensor, total: Tensor) -> None:
    """All points with all.

    Args:
        rows: (g, p, r, d) of one side of a block.
        kept: (2, w) the pairs of points whose products are kept, on the device.
        products: (g, w, r, r), where they go.
        total: (g, p, r), where the sums over d go; or (g, 0, r).
    """
    modules, points, rank, _ = rows.shape
    flat = rows.flatten(1, 2)
    by_points = (flat @ flat.mT).view(modules, points, rank, points, rank).transpose(2, 3)
    products.copy_(by_points[:, kept[0], kept[1]])
    if total.numel():
        total.copy_(rows.sum(dim=-1))


def combined(coordinates: Tensor, rows: Tensor) -> Tensor:
    """The sum over points of coordinates (g, b, p, r) @ rows (g, p, r, d); float32."""
    return (coordinates.flatten(2) @ rows.flatten(1, 2)).float()
