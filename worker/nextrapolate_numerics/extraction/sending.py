"""How groups of modules get to a GPU: the next one while one is worked on."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import cycle, groupby, repeat
from math import prod
from operator import itemgetter
from threading import local
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.blocks import SentGroup, SentModule
from nextrapolate_numerics.extraction.groups import moving
from nextrapolate_numerics.series import Trajectory

PINNED_BYTES = 8 << 20  # of each of two rooms that a reader has, or of the largest factor
_READERS = 16  # threads that wait for the disk or copy from its cache


def sent(trajectory: Trajectory, plan: Sequence[Sequence[str]], device: torch.device) -> Iterator[SentGroup]:
    """Those of each group that moved, on a GPU; threads read and send the group after the one at hand."""
    with ThreadPoolExecutor(_READERS) as readers, ThreadPoolExecutor(1) as ahead:
        sender = _Sender(trajectory, device, readers)
        coming = ahead.submit(sender.send, plan[0])
        for following in (*plan[1:], None):
            group, arrived = coming.result()
            if following:
                coming = ahead.submit(sender.send, following)
            here = torch.cuda.current_stream(device)
            here.wait_event(arrived)
            group.used_on(here)
            yield group


@dataclass(frozen=True)
class Factors:
    """Factors of modules at one point, one behind the other: as in the first file, and as a rule in all.

    Attributes:
        which: a module's name, and whether it is its B or its A.
        shapes: of each.
    """

    which: tuple[tuple[str, bool], ...]
    shapes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, names: Sequence[str], trajectory: Trajectory) -> Self:
        """Of these modules."""
        layout, found = trajectory.layouts[0], []
        for name in names:
            keys = layout.modules[name]
            for is_B, key, shape in ((True, keys.B, (keys.m, keys.r)), (False, keys.A, (keys.r, keys.n))):
                found.append((layout.file.entries[key].begin, (name, is_B), shape))
        _, which, shapes = zip(*sorted(found), strict=True)
        return cls(which, shapes)

    @cached_property
    def entries(self) -> int:
        """Of all of them."""
        return sum(map(prod, self.shapes))

    def pieces(self) -> list[Self]:
        """As many at a time as go into pinned memory, one at least."""
        held, number, numbers = 0, 0, []
        for entries in map(prod, self.shapes):
            held += entries
            if held > PINNED_BYTES // 4:
                held, number = entries, number + 1
            numbers.append(number)
        each = zip(numbers, self.which, self.shapes, strict=True)
        pieces = (zip(*piece, strict=True) for _, piece in groupby(each, itemgetter(0)))
        return [type(self)(which, shapes) for _, which, shapes in pieces]

    def modules(self, memory: Tensor, scaling: Callable[[str], float]) -> Iterator[tuple[str, SentModule]]:
        """Each one at p points, from (p, entries)."""
        parts = torch.split(memory, list(map(prod, self.shapes)), dim=1)
        each = zip(self.which, parts, self.shapes, strict=True)
        found = {which: part.view(-1, *shape) for which, part, shape in each}
        for name in dict.fromkeys(name for name, _ in self.which):
            yield name, SentModule(found[name, True], found[name, False], scaling(name))


class _Sender:
    """Factors go to the GPU by way of pinned memory, on a stream of their own.

    Args:
        trajectory: whose they are.
        device: the GPU.
        readers: read a point each, and send it on.
    """

    def __init__(self, trajectory: Trajectory, device: torch.device, readers: ThreadPoolExecutor) -> None:
        self._trajectory, self._device, self._readers = trajectory, device, readers
        self._way = _way_to(device)
        self._own = local()

    def send(self, names: Sequence[str]) -> tuple[SentGroup, torch.cuda.Event]:
        """Read a group and send those that moved; the event tells that they have arrived."""
        moved = moving(self._trajectory, names)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        if not moved:
            return SentGroup.of([]), arrived
        factors = Factors.of(moved, self._trajectory)
        points, pieces = range(len(self._trajectory.points)), factors.pieces()
        with torch.cuda.stream(self._way):
            room = torch.empty(len(points), factors.entries, device=self._device)
            list(self._readers.map(self._send, repeat(pieces), points, room))
            group = SentGroup.of(factors.modules(room, self._trajectory.config.scaling))
            arrived.record(self._way)
        return group, arrived

    def _send(self, pieces: Sequence[Factors], point: int, room: Tensor) -> None:
        """Read and send the factors at one point, a piece at a time."""
        rooms = torch.split(room, [piece.entries for piece in pieces])
        with torch.cuda.stream(self._way):
            for piece, there in zip(pieces, rooms, strict=True):
                pinned = self._pinned()
                memory = pinned.of(piece.entries)
                self._trajectory.read(point, piece.which, memory)
                there.copy_(memory, non_blocking=True)
                pinned.gone.record(self._way)

    def _pinned(self) -> "_Pinned":
        """The reader's other room: while one is filled, what was in the other is on its way."""
        if not hasattr(self._own, "turns"):
            self._own.turns = cycle([_Pinned(), _Pinned()])
        pinned: _Pinned = next(self._own.turns)
        return pinned


@cache
def _way_to(device: torch.device) -> torch.cuda.Stream:
    """One for the process: memory is kept for the stream that it was used on, and new memory costs time."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


class _Pinned:
    """Pinned memory, used again and again.

    Attributes:
        gone: what was in it is.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0)
        self.gone = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def of(self, entries: int) -> Tensor:
        """So many float32, as soon as it is free."""
        self.gone.synchronize()
        if len(self._memory) < entries:
            self._memory = torch.empty(max(entries, PINNED_BYTES // 4), pin_memory=True)
        return self._memory[:entries]
