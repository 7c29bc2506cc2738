"""Groups of modules on the device, the next of which is read while one is being worked on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.groups import Group, moving
from nextrapolate_numerics.extraction.stack import Stack
from nextrapolate_numerics.series import ModuleFactors, Trajectory


def mapped(trajectory: Trajectory, names: Sequence[str]) -> Group:
    """Those of these modules that moved, in the pages of their files: where a CPU reads them."""
    return Group.of((name, Stack.of(factors)) for name, factors in moving(trajectory, names))


def sent(trajectory: Trajectory, plan: Sequence[Sequence[str]], device: torch.device) -> Iterator[Group]:
    """Those of each group that moved, on a GPU; a thread reads and sends the group after the one at hand."""
    sender = _Sender(device)

    def send(names: Sequence[str]) -> Group:
        group = Group.of((name, sender.send(factors)) for name, factors in moving(trajectory, names))
        sender.finish()
        return group

    with ThreadPoolExecutor(1, thread_name_prefix="factors") as reader:
        coming = reader.submit(send, plan[0])
        for index in range(len(plan)):
            group = coming.result()
            if plan[index + 1 :]:
                coming = reader.submit(send, plan[index + 1])
            sender.hand_over(group)
            yield group


class _Sender:
    """Factors go to the GPU from pinned memory, on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._way = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._turns = cycle([(_Pinned(), torch.cuda.Event()) for _ in range(2)])  # type: ignore[no-untyped-call]

    def send(self, factors: ModuleFactors) -> Stack:
        """On their way, which they have gone at the next `finish`."""
        memory, gone = next(self._turns)
        gone.synchronize()  # what was in this memory before
        with torch.cuda.stream(self._way):
            left, right = (side.to(self._device, non_blocking=True) for side in memory.filled(factors))
            gone.record(self._way)
        return Stack.of(ModuleFactors(left.unbind(), right.unbind(), factors.scaling))

    def finish(self) -> None:
        """Wait until all have arrived."""
        self._way.synchronize()

    def hand_over(self, group: Group) -> None:
        """Their memory is not used again before the stream that works on them has come as far."""
        here = torch.cuda.current_stream(self._device)
        for stack in group.stacks:
            for side in (stack.left, stack.right):
                side.factors[0].record_stream(here)


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
