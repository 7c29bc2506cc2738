"""Modules that are worked on together: a few at a time, and their small matrices as one batch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import torch

from nextrapolate_numerics.extraction.gram import Pairs
from nextrapolate_numerics.extraction.stack import Stack
from nextrapolate_numerics.series import ModuleFactors, Trajectory


@dataclass(frozen=True)
class Group:
    """Modules of one rank that moved.

    Attributes:
        names: of them.
        stacks: their factors, on the device.
    """

    names: tuple[str, ...]
    stacks: tuple[Stack, ...]

    @classmethod
    def of(cls, members: Iterable[tuple[str, Stack]]) -> Self:
        """From each one's name and factors; there may be none."""
        found = dict(members)
        return cls(tuple(found), tuple(found.values()))


@dataclass(frozen=True)
class _Room:
    """Bytes of what is held of a group: one that has so many has no further module.

    Attributes:
        products: of inner products.
        factors: at all points, float32.
    """

    products: int
    factors: int


_ON_CPU = _Room(4 << 20, 32 << 20)  # of each thread: enough for a call to be worth it, and little memory


def _on_gpu(device: torch.device, products: int) -> _Room:
    """A group takes a thousand launches, which have to be worth it, and some times as much memory beside.

    A quarter of all products at most: while the first group is read, nothing else is done.
    """
    memory = torch.cuda.get_device_properties(device).total_memory
    return _Room(min(memory // 512, products // 4), memory // 64)


def planned(trajectory: Trajectory, pairs: Pairs, device: torch.device) -> list[list[str]]:
    """The names of all modules in groups, in their order: those of a group have one rank."""
    modules, points = trajectory.layouts[0].modules, len(trajectory.points)
    of_products = {name: 16 * len(pairs.kept) * keys.r**2 for name, keys in modules.items()}
    room = _ON_CPU if device.type == "cpu" else _on_gpu(device, sum(of_products.values()))
    plan: list[list[str]] = []
    rank = products = factors = 0
    for name, keys in modules.items():
        if not plan or keys.r != rank or products >= room.products or factors >= room.factors:
            plan.append([])
            rank, products, factors = keys.r, 0, 0
        plan[-1].append(name)
        products += of_products[name]
        factors += 4 * points * keys.r * (keys.m + keys.n)
    return plan


def moving(
    trajectory: Trajectory, modules: Iterable[tuple[str, ModuleFactors]]
) -> Iterator[tuple[str, ModuleFactors]]:
    """Those whose delta changed at all; the others' factors are written again, and so have to be numbers.

    Raises:
        NonFiniteWeightsError: NaN or Inf in a factor of one that did not.
    """
    for name, factors in modules:
        if all(factors.is_still(start, end) for start, end in trajectory.drift.segments):
            trajectory.check_finite(name, factors, range(len(trajectory.points)))
        else:
            yield name, factors
