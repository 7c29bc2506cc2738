"""A module's factors at all points, where the work is done; widened to float64 a tile at a time."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from math import ceil
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.series import ModuleFactors

_TILE_BYTES = 1 << 20  # half of a core's second-level cache; what comes of a tile wants the rest


@dataclass(frozen=True)
class Side:
    """The B or the A of a module at p points, float32 on the device.

    Attributes:
        factors: p times B (m, r) or A (r, n); on a CPU in the pages of their files.
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

    @property
    def device(self) -> torch.device:
        """Where the factors are."""
        return self.factors[0].device

    def tile(self) -> Tensor:
        """Room for B^T or A of all points over one range of d, (p, r, c) float64."""
        size = [len(self), *self.factors[0].shape]
        size[1 + self.long] = self._fitting(len(self))
        room = torch.empty(size, dtype=torch.float64, device=self.device)
        return room if self.long else room.mT

    def widened(self, tile: Tensor) -> Iterator[None]:
        """Fill a tile with one range of d after the other; where the last one ends with 0.

        On a CPU what is written stays in the cache until it is multiplied.
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
        """The factors for one range of d after the other: on a GPU for all of it at once.

        Args:
            together: of how many points a range has to fit into a CPU's cache in float64.
        """
        width = self._fitting(together)
        return zip(*(factor.split(width, self.long) for factor in self.factors), strict=True)  # type: ignore[no-untyped-call]

    def _fitting(self, together: int) -> int:
        """How much of d a range has: d in as many equal ones as it takes."""
        if self.device.type != "cpu":
            return self.width
        bytes_each = 8 * together * self.rank
        return ceil(self.width / ceil(self.width * bytes_each / _TILE_BYTES))


@dataclass(frozen=True)
class Stack:
    """One module's factors at p points on the device: dW_k = scaling B_k A_k.

    Attributes:
        left: the B_k.
        right: the A_k.
        scaling: the LoRA scaling, which is in neither.
    """

    left: Side
    right: Side
    scaling: float

    @property
    def entries(self) -> int:
        """Of a delta, m n."""
        return self.left.width * self.right.width

    @property
    def mapped_bytes(self) -> int:
        """Of the factors, as far as they lie in the pages of files: on a CPU."""
        sides = [side for side in (self.left, self.right) if side.device.type == "cpu"]
        return sum(factor.nbytes for side in sides for factor in side.factors)

    @classmethod
    def of(cls, factors: ModuleFactors) -> Self:
        """Factors that are on the device."""
        return cls(Side(factors.B, 0), Side(factors.A, 1), factors.scaling)


def stacks(modules: Iterable[tuple[str, ModuleFactors]], device: torch.device) -> Iterator[tuple[str, Stack]]:
    """The modules on the device, one after the other.

    On a CPU factors stay in the pages of their files. For a GPU, where they are copies, the next module is
    read and sent while the last one is being worked on.
    """
    if device.type == "cuda":
        modules = _one_ahead(modules, device)
    for name, factors in modules:
        yield name, Stack.of(factors)


def _one_ahead(
    modules: Iterable[tuple[str, ModuleFactors]], device: torch.device
) -> Iterator[tuple[str, ModuleFactors]]:
    """Factors go to the GPU from pinned memory, on a stream of their own."""
    way = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    memories = [_Pinned() for _ in range(2)]
    events = [torch.cuda.Event() for _ in memories]  # type: ignore[no-untyped-call]

    def send() -> Iterator[tuple[str, float, list[Tensor], torch.cuda.Event]]:
        turns = cycle(zip(memories, events, strict=True))
        for (name, factors), (memory, sent) in zip(modules, turns, strict=False):
            sent.synchronize()  # what was in this memory before
            with torch.cuda.stream(way):
                sides = [side.to(device, non_blocking=True) for side in memory.filled(factors)]
                sent.record(way)
            yield name, factors.scaling, sides, sent

    coming = send()
    with ThreadPoolExecutor(1, thread_name_prefix="factors") as reader:
        next_one = reader.submit(next, coming, None)
        while (found := next_one.result()) is not None:
            next_one = reader.submit(next, coming, None)
            name, scaling, (left, right), sent = found
            here = torch.cuda.current_stream(device)
            here.wait_event(sent)
            for side in (left, right):
                side.record_stream(here)
            yield name, ModuleFactors(left.unbind(), right.unbind(), scaling)


class _Pinned:
    """Pinned memory for one module's factors, used again and again."""

    def __init__(self) -> None:
        self._room = torch.empty(0)

    def filled(self, factors: ModuleFactors) -> list[Tensor]:
        """The factors at all points, (p, m, r) and (p, r, n) float32."""
        sides = factors.B, factors.A
        shapes = [torch.Size([len(side), *side[0].shape]) for side in sides]
        sizes = [shape.numel() for shape in shapes]
        if len(self._room) < sum(sizes):
            self._room = torch.empty(sum(sizes), pin_memory=True)
        rooms = self._room[: sum(sizes)].split(sizes)  # type: ignore[no-untyped-call]
        return [
            torch.stack(side, out=room.view(shape))
            for side, room, shape in zip(sides, rooms, shapes, strict=True)
        ]
