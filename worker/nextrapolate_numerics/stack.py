"""A module's factors at all points side by side, where the work is done."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from nextrapolate_numerics.trajectory import ModuleFactors


@dataclass(frozen=True)
class Stack:
    """One module's factors at p points in float64, on the device: dW_k = scaling left[k]^T right[k].

    Attributes:
        left: (p, r, m), the B_k^T; strides as the files have them.
        right: (p, r, n), the A_k.
        scaling: the LoRA scaling, which is in neither.
    """

    left: Tensor
    right: Tensor
    scaling: float


def stacks(modules: Iterable[tuple[str, ModuleFactors]], device: torch.device) -> Iterator[tuple[str, Stack]]:
    """Lay one module after the other side by side; on a CPU, each in the memory of the one before.

    For a GPU the next module is read and sent while the last one is being worked on.
    """
    if device.type == "cuda":
        yield from _one_ahead(modules, device)
        return
    memory = _Memory(torch.float64, is_pinned=False)
    for name, factors in modules:
        left, right = memory.filled(factors)
        scaling = factors.scaling
        del factors  # as long as one tensor of them is held, the files stay mapped
        yield name, Stack(left.to(device).mT, right.to(device), scaling)


def _one_ahead(
    modules: Iterable[tuple[str, ModuleFactors]], device: torch.device
) -> Iterator[tuple[str, Stack]]:
    """Factors go to the GPU as float32, from pinned memory, on a stream of their own."""
    way = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    memories = [_Memory(torch.float32, is_pinned=True) for _ in range(2)]
    events = [torch.cuda.Event() for _ in memories]  # type: ignore[no-untyped-call]

    def send() -> Iterator[tuple[str, float, list[Tensor], torch.cuda.Event]]:
        turns = cycle(zip(memories, events, strict=True))
        for (name, factors), (memory, sent) in zip(modules, turns, strict=False):
            sent.synchronize()  # what was in this memory before
            with torch.cuda.stream(way):
                sides = [side.to(device, non_blocking=True).double() for side in memory.filled(factors)]
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
            yield name, Stack(left.mT, right, scaling)


class _Memory:
    """Room for one module's factors, used again and again."""

    def __init__(self, dtype: torch.dtype, *, is_pinned: bool) -> None:
        self._dtype, self._is_pinned = dtype, is_pinned
        self._room = torch.empty(0)

    def filled(self, factors: ModuleFactors) -> tuple[Tensor, Tensor]:
        """The factors at all points, (p, m, r) and (p, r, n), widened to the memory's dtype."""
        sides = factors.B, factors.A
        shapes = [torch.Size([len(side), *side[0].shape]) for side in sides]
        sizes = [shape.numel() for shape in shapes]
        if len(self._room) < sum(sizes):
            self._room = torch.empty(sum(sizes), dtype=self._dtype, pin_memory=self._is_pinned)
        rooms = self._room[: sum(sizes)].split(sizes)  # type: ignore[no-untyped-call]
        left, right = (room.view(shape) for room, shape in zip(rooms, shapes, strict=True))
        for stacked, side in ((left, factors.B), (right, factors.A)):
            for place, factor in zip(stacked, side, strict=True):
                place.copy_(factor)
        return left, right
