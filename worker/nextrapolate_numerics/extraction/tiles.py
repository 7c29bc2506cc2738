"""Modules as a CPU works on them: one after the other, a tile at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.deltas import Delta, owners
from nextrapolate_numerics.extraction.gram import FactorGrams, Pairs
from nextrapolate_numerics.extraction.products import multiply
from nextrapolate_numerics.extraction.side import Side
from nextrapolate_numerics.series import StoredModule


@dataclass(frozen=True)
class TiledModule:
    """One module at p points: dW_k = scaling B_k A_k.

    Attributes:
        left: the B_k.
        right: the A_k.
        scaling: the LoRA scaling, which is in neither.
    """

    left: Side
    right: Side
    scaling: float


@dataclass(frozen=True)
class TiledGroup:
    """Modules of one rank, worked on one after the other (`Group`).

    Attributes:
        names: of them.
        modules: in the same order; one at least.
    """

    names: tuple[str, ...]
    modules: tuple[TiledModule, ...]

    @classmethod
    def of(cls, members: Iterable[tuple[str, StoredModule]]) -> Self:
        """From each one's name and factors; there may be none."""
        found = dict(members)
        modules = (TiledModule(Side(of.B, 0), Side(of.A, 1), of.scaling) for of in found.values())
        return cls(tuple(found), tuple(modules))

    @property
    def entries(self) -> list[int]:
        """Of each one's delta, m n."""
        return [module.left.width * module.right.width for module in self.modules]

    def multiplied(self, pairs: Pairs, *, sums: bool = False) -> FactorGrams:
        """Inner products of their factors; O(w r^2 (m + n)) a module, the most of an extraction's work."""
        scalings, rank = [module.scaling for module in self.modules], self.modules[0].left.rank
        grams = FactorGrams.zeros(scalings, rank, pairs, torch.device("cpu"), sums=sums)
        for module, *products in zip(self.modules, grams.left, grams.left_sums, strict=True):
            multiply(module.left, pairs, *products)
        for module, *products in zip(self.modules, grams.right, grams.right_sums, strict=True):
            multiply(module.right, pairs, *products)
        return grams

    def combined(self, u: Tensor, v: Tensor, deltas: Sequence[Delta]) -> Iterator[tuple[Tensor, Tensor]]:
        """Vectors (1, b, m) and (1, b, n) of one module after the other, from their coordinates."""
        which = owners(deltas, u.shape[2], u.device)
        for module, of_u, of_v in zip(self.modules, u, v, strict=True):
            yield combined(of_u, module.left, which)[None], combined(of_v, module.right, which)[None]


def combined(coordinates: Tensor, side: Side, which: Sequence[Tensor]) -> Tensor:
    """The sum over points of coordinates (b, p, r) @ factors (p, r, d), float32.

    Args:
        coordinates: 0 but at the points of each of the b deltas.
        side: B or A of one module.
        which: of the deltas have each point.
    """
    own = [coordinates[indices, point] for point, indices in enumerate(which)]
    vectors = []
    for parts in side.ranges(together=1):
        sums = coordinates.new_zeros(len(coordinates), parts[0].shape[side.long])
        for indices, rows, part in zip(which, own, parts, strict=True):
            sums.index_add_(0, indices, rows @ (part if side.long else part.mT).double())
        vectors.append(sums.float())
    return torch.cat(vectors, dim=1)
