"""Modules as a CPU works on them: where their files are mapped, widened to float64 a tile at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.deltas import Delta, owners
from nextrapolate_numerics.extraction.gram import FactorGrams, Pairs
from nextrapolate_numerics.series import ModuleFactors

_TILE_BYTES = 1 << 20  # half of a core's second-level cache; what comes of a tile wants the rest


@dataclass(frozen=True)
class Side:
    """The B or the A of a module at p points, float32.

    Attributes:
        factors: p times B (m, r) or A (r, n), in the pages of their files.
        long: the axis of m or n, called d in what follows.
    """

    factors: tuple[Tensor, ...]
    long: int

    def __len__(self) -> int:
        return len(self.factors)

    @property
    def rank(self) -> int:
        """The length of the other axis."""
        return self.factors[0].shape[1 - self.long]

    @property
    def width(self) -> int:
        """The length of that axis, d."""
        return self.factors[0].shape[self.long]

    def tile(self) -> Tensor:
        """Room for B^T or A of all points over one range of d, (p, r, c) float64."""
        size = [len(self), *self.factors[0].shape]
        size[1 + self.long] = self._fitting(len(self))
        room = torch.empty(size, dtype=torch.float64)
        return room if self.long else room.mT

    def widened(self, tile: Tensor) -> Iterator[None]:
        """Fill a tile with one range of d after the other; where the last one ends with 0.

        What is written stays in the cache until it is multiplied.
        """
        rows = (tile if self.long else tile.mT).unbind()
        for parts in self.ranges(together=len(self)):
            width = parts[0].shape[self.long]
            if width < tile.shape[-1]:
                tile[..., width:] = 0
                rows = tuple(row.narrow(self.long, 0, width) for row in rows)
            for row, part in zip(rows, parts, strict=True):
                row.copy_(part)
            yield

    def ranges(self, together: int) -> Iterator[tuple[Tensor, ...]]:
        """The factors for one range of d after the other.

        Args:
            together: of how many points a range has to fit into a core's cache in float64.
        """
        width = self._fitting(together)
        return zip(*(torch.split(factor, width, self.long) for factor in self.factors), strict=True)

    def _fitting(self, together: int) -> int:
        """How much of d a range has: d in as many equal ones as it takes."""
        bytes_each = 8 * together * self.rank
        return ceil(self.width / ceil(self.width * bytes_each / _TILE_BYTES))


@dataclass(frozen=True)
class MappedModule:
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
class MappedGroup:
    """Modules of one rank, worked on one after the other (`Group`).

    Attributes:
        names: of them.
        modules: in the same order; one at least.
    """

    names: tuple[str, ...]
    modules: tuple[MappedModule, ...]

    @classmethod
    def of(cls, members: Iterable[tuple[str, ModuleFactors]]) -> Self:
        """From each one's name and factors; there may be none."""
        found = dict(members)
        modules = (MappedModule(Side(of.B, 0), Side(of.A, 1), of.scaling) for of in found.values())
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


def multiply(side: Side, pairs: Pairs, products: Tensor, total: Tensor) -> None:
    """A tile at a time, each pair in one order; its mirror, where it is kept, is copied.

    Args:
        side: B or A of one module.
        pairs: of points.
        products: (w, r, r) zeros, to which the products are added.
        total: (p, r) zeros, to which the sums over d are added; or (0, r).
    """
    sizes = [end - begin for _, begin, end in pairs.runs]
    mirrored = [end - begin for apart, begin, end in pairs.runs if apart and pairs.mirrored]
    runs = torch.split(products, [*sizes, *mirrored])
    runs, mirrors = runs[: len(sizes)], runs[len(sizes) :]
    tile = side.tile()
    factors = [(tile[begin + apart : end + apart], tile[begin:end].mT) for apart, begin, end in pairs.runs]
    for _ in side.widened(tile):
        if len(total):
            total += tile.sum(dim=-1)
        for run, (one, other) in zip(runs, factors, strict=True):
            torch.baddbmm(run, one, other, out=run)
    for mirror, run in zip(mirrors, runs[len(runs) - len(mirrors) :], strict=True):
        mirror.copy_(run.mT)


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
