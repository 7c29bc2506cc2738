"""Groups of modules on the device, the next of which is read while one is being worked on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.groups import Group, moving
from nextrapolate_numerics.extraction.stack import Stack
from nextrapolate_numerics.series import ModuleFactors, Trajectory

_PINNED_BYTES = 128 << 20  # of each of two rooms, or of the largest module
_READERS = 16  # threads that wait for the disk or copy from its cache


def mapped(trajectory: Trajectory, names: Sequence[str]) -> Group:
    """Those of these modules that moved, in the pages of their files: where a CPU reads them."""
    modules = moving(trajectory, trajectory.modules(names))
    return Group.of((name, Stack.of(factors)) for name, factors in modules)


def sent(trajectory: Trajectory, plan: Sequence[Sequence[str]], device: torch.device) -> Iterator[Group]:
    """Those of each group that moved, on a GPU; threads read and send the group after the one at hand."""
    with ThreadPoolExecutor(_READERS) as readers, ThreadPoolExecutor(1) as ahead:
        sender = _Sender(trajectory, device, readers)
        coming = ahead.submit(sender.send, plan[0])
        for following in (*plan[1:], None):
            group = coming.result()
            if following:
                coming = ahead.submit(sender.send, following)
            sender.hand_over(group)
            yield group


class _Sender:
    """Factors go to the GPU by way of pinned memory, on a stream of their own.

    Args:
        trajectory: whose they are.
        device: the GPU.
        readers: read a point each.
    """

    def __init__(self, trajectory: Trajectory, device: torch.device, readers: ThreadPoolExecutor) -> None:
        self._trajectory, self._device, self._readers = trajectory, device, readers
        self._way = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._turns = cycle([(_Pinned(), torch.cuda.Event()) for _ in range(2)])  # type: ignore[no-untyped-call]

    def send(self, names: Sequence[str]) -> Group:
        """Read and send a group."""
        group = Group.of(member for some in self._rooms_full(names) for member in self._sent(some))
        self._way.synchronize()
        return group

    def hand_over(self, group: Group) -> None:
        """Their memory is not used again before the stream that works on them has come as far."""
        here = torch.cuda.current_stream(self._device)
        for stack in group.stacks:
            stack.left.factors[0].record_stream(here)

    def _sent(self, names: Sequence[str]) -> list[tuple[str, Stack]]:
        """Modules that are read and sent together, those that moved."""
        memory, gone = next(self._turns)
        gone.synchronize()  # what was in this memory before
        room = memory.of(sum(map(self._entries, names)))
        modules = self._laid_out(room, names)
        points = range(len(self._trajectory.points))
        rooms = [{name: (each.B[point], each.A[point]) for name, each in modules.items()} for point in points]
        list(self._readers.map(self._trajectory.read, rooms, points))
        moved = dict(moving(self._trajectory, modules.items()))
        with torch.cuda.stream(self._way):
            there = self._laid_out(room.to(self._device, non_blocking=True), names)
            gone.record(self._way)
        return [(name, Stack.of(there[name])) for name in moved]

    def _laid_out(self, memory: Tensor, names: Sequence[str]) -> dict[str, ModuleFactors]:
        """Factors of modules at all points, one behind the other."""
        points, config = len(self._trajectory.points), self._trajectory.config
        modules = {}
        for name in names:
            keys = self._trajectory.layouts[0].modules[name]
            sizes = [points * keys.m * keys.r, points * keys.r * keys.n]
            left, right, memory = torch.split(memory, [*sizes, len(memory) - sum(sizes)])
            B, A = left.view(points, keys.m, keys.r), right.view(points, keys.r, keys.n)
            modules[name] = ModuleFactors(B.unbind(), A.unbind(), config.scaling(name))
        return modules

    def _entries(self, name: str) -> int:
        """Of a module's factors at all points."""
        keys = self._trajectory.layouts[0].modules[name]
        return len(self._trajectory.points) * keys.r * (keys.m + keys.n)

    def _rooms_full(self, names: Sequence[str]) -> Iterator[list[str]]:
        """As many as go into pinned memory together, one at least."""
        some: list[str] = []
        entries = 0
        for name in names:
            entries += self._entries(name)
            if some and 4 * entries > _PINNED_BYTES:
                yield some
                some, entries = [], self._entries(name)
            some.append(name)
        yield some


class _Pinned:
    """Pinned memory, used again and again."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def of(self, entries: int) -> Tensor:
        """So many float32."""
        if len(self._memory) < entries:
            self._memory = torch.empty(max(entries, _PINNED_BYTES // 4), pin_memory=True)
        return self._memory[:entries]
