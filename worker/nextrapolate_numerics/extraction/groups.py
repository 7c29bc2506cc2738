"""Modules that are worked on together: a few at a time, and their small matrices as one batch."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.deltas import Delta
from nextrapolate_numerics.extraction.gram import FactorGrams, Pairs
from nextrapolate_numerics.parallel import MAX_MODULES
from nextrapolate_numerics.series import Trajectory


class Group(Protocol):
    """Modules of one rank that moved: in tiles for a CPU, in blocks on a GPU."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the g modules; the order of all that is told of them. There may be none."""

    @property
    def entries(self) -> list[int]:
        """Of each one's delta, m n."""

    def multiplied(self, pairs: Pairs, *, sums: bool = False) -> FactorGrams:
        """Inner products of their factors, and where that is wanted the sums of their entries."""

    def combined(self, u: Tensor, v: Tensor, deltas: Sequence[Delta]) -> Iterator[tuple[Tensor, Tensor]]:
        """Vectors of some modules after the other, (g', b, m) and (g', b, n) float32 on the device.

        Args:
            u: (g, b, p, r) coordinates: a vector is the sum over points of u[.., p] @ B_p^T.
            v: (g, b, p, r) likewise, of A_p.
            deltas: the b that the vectors are of: 0 but at the points of theirs.
        """


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
_AT_ONCE = 16 << 20  # bytes of inner products that all threads hold; each takes some six times its own
_AT_ONCE_SHARE = 8  # and this part of a checkpoint more: a job of large ones may take more memory
_OF_ONE = 32 << 20  # bytes of inner products that a module which is worked on alone may have held at a time
_OF_ONE_SHARE = 4  # and this part of a checkpoint more
_LAUNCHED = 400 << 20  # bytes of factors that are read while one group's work is launched on a GPU


def _on_gpu(device: torch.device, factors: int) -> _Room:
    """Groups of a size at which launching them all, and reading the first, takes the least time.

    Each takes some times as much memory beside its factors.
    """
    memory = torch.cuda.get_device_properties(device).total_memory
    groups = max(1, round(math.sqrt(factors / _LAUNCHED)))
    return _Room(memory // 128, min(factors // groups, memory // 64))


def most_pairs(trajectory: Trajectory, device: torch.device) -> int:
    """Of how many pairs of points the products may be held at a time, for one module at least."""
    if device.type == "cuda":  # which makes the products of all points with all at a time in any case
        return len(trajectory.points) ** 2
    rank = max(keys.r for keys in trajectory.layouts[0].modules.values())
    return max(1, (_OF_ONE + _checkpoint_bytes(trajectory) // _OF_ONE_SHARE) // (16 * rank**2))


def planned(trajectory: Trajectory, held: int, device: torch.device) -> list[list[str]]:
    """The names of all modules in groups, in their order: those of a group have one rank.

    Args:
        trajectory: of the modules.
        held: how many products of two points are held of each at a time.
        device: where the work is done.
    """
    modules, points = trajectory.layouts[0].modules, len(trajectory.points)
    of_factors = {name: 4 * points * keys.r * (keys.m + keys.n) for name, keys in modules.items()}
    on_gpu = device.type == "cuda"
    room = _on_gpu(device, sum(of_factors.values())) if on_gpu else _ON_CPU
    # of both sides, beside which a GPU has all points' products of one
    held += points**2 // 2 if on_gpu else 0
    plan: list[list[str]] = []
    rank = products = factors = 0
    for name, keys in modules.items():
        if not plan or keys.r != rank or products >= room.products or factors >= room.factors:
            plan.append([])
            rank, products, factors = keys.r, 0, 0
        plan[-1].append(name)
        products += 16 * held * keys.r**2
        factors += of_factors[name]
    return plan


def at_once(trajectory: Trajectory, held: int) -> int:
    """How many groups a CPU's threads may work on at a time, for the memory that their products take.

    One that has more of them than all threads may hold is worked on alone, by all of torch's threads.
    """
    rank = max(keys.r for keys in trajectory.layouts[0].modules.values())
    of_group = max(_ON_CPU.products, 16 * held * rank**2)
    room = _AT_ONCE + _checkpoint_bytes(trajectory) // _AT_ONCE_SHARE
    return max(1, min(MAX_MODULES, room // of_group))


def _checkpoint_bytes(trajectory: Trajectory) -> int:
    return 4 * sum(keys.r * (keys.m + keys.n) for keys in trajectory.layouts[0].modules.values())


def moving(trajectory: Trajectory, names: Iterable[str]) -> list[str]:
    """Modules whose delta changed at all; the others' factors are written again, and so have to be numbers.

    Raises:
        NonFiniteWeightsError: NaN or Inf in a factor of one that did not.
    """
    moved = {name: trajectory.moved(name) for name in names}
    for name in moved:
        if not moved[name]:
            trajectory.module(name)
    return [name for name in moved if moved[name]]
