"""One side of a module at all points, read and widened to float64 a tile at a time."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.series import StoredFactor

_TILE_BYTES = 1 << 20  # half of a core's second-level cache; what comes of a tile wants the rest
_READ_BYTES = 8 << 20  # of all points at a time: little memory, and rows that are worth a system call each
_FIRST = 4  # entries in which two factors are hardly ever alike by chance


@dataclass(frozen=True)
class Side:
    """The B or the A of a module at p points, float32.

    Attributes:
        factors: p times B (m, r) or A (r, n).
        long: the axis of m or n, called d in what follows.
    """

    factors: tuple[StoredFactor, ...]
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

    def distinct(self) -> tuple[Self, Tensor]:
        """One of each set of equal factors, and (p,) which of them each point has.

        Rounding tells products of equal factors apart, unless they are one product.
        """
        some: list[StoredFactor] = []
        alike: dict[tuple[float, ...], list[int]] = {}  # by how they begin: few are compared whole
        which = []
        for factor in self.factors:
            begun = alike.setdefault(tuple(factor.first_row()[:_FIRST].tolist()), [])
            same = next((at for at in begun if torch.equal(factor.read(), some[at].read())), len(some))
            if same == len(some):
                begun.append(same)
                some.append(factor)
            which.append(same)
        return replace(self, factors=tuple(some)), torch.tensor(which)

    def tile(self) -> Tensor:
        """Room for B^T or A of all points over one range of d, (p, r, c) float64; flat it is a view."""
        points, rank, width = len(self), self.rank, self._fitting(len(self))
        if self.long:
            return torch.empty(points, rank, width, dtype=torch.float64)
        return torch.empty(width, points, rank, dtype=torch.float64).permute(1, 2, 0)

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
        with _lent(len(self) * self.rank) as room:
            read = len(room) // (len(self) * self.rank)
            width = min(self._fitting(together), read)
            read -= read % width
            for begin in range(0, self.width, read):
                parts = self._parts(begin, min(read, self.width - begin), room)
                yield from zip(*(torch.split(part, width, self.long) for part in parts), strict=True)

    def _parts(self, begin: int, length: int, room: Tensor) -> Iterator[Tensor]:
        """The factors for one range of d, read into memory that is given."""
        each = length * self.rank
        rooms = room[: len(self) * each].view(len(self), each)
        for factor, own in zip(self.factors, rooms, strict=True):
            yield factor.part(self.long, begin, length, own)

    def _fitting(self, together: int) -> int:
        """How much of d a range has: d in as many equal ones as it takes."""
        bytes_each = 8 * together * self.rank
        return ceil(self.width / ceil(self.width * bytes_each / _TILE_BYTES))


_rooms: deque[Tensor] = deque()


@contextmanager
def _lent(least: int) -> Iterator[Tensor]:
    """Memory for what is read, float32: new memory would cost as much time as reading does."""
    try:
        room = _rooms.pop()
    except IndexError:
        room = torch.empty(_READ_BYTES // 4)
    try:
        yield room if len(room) >= least else torch.empty(least)
    finally:
        _rooms.append(room)
