"""Modules that moved, a few at a time: their small matrices are decomposed together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch

from nextrapolate_numerics.drift import Drift
from nextrapolate_numerics.gram import FactorGrams, Pairs
from nextrapolate_numerics.stack import Stack, stacks
from nextrapolate_numerics.trajectory import ModuleFactors, Trajectory

_TOGETHER_BYTES = 4 << 20  # of inner products: enough for a call to be worth it, and little of a job's memory


@dataclass(frozen=True)
class Multiplied:
    """A module that moved, and the inner products of its factors."""

    name: str
    stack: Stack
    products: FactorGrams


def groups(
    trajectory: Trajectory, pairs: Pairs, device: torch.device, *, sums: bool
) -> Iterator[list[Multiplied]]:
    """Modules of one rank whose files are open at once, in the order of their names.

    Args:
        trajectory: read once.
        pairs: of points whose factors are multiplied.
        device: where the work is done.
        sums: whether sums of entries are wanted.

    Raises:
        NonFiniteWeightsError: NaN or Inf in a factor.
    """
    for window in stacks(map(_moving, trajectory.windows(), repeat(trajectory.drift)), device):
        group: list[Multiplied] = []
        for name, stack in window:
            if group and (stack.left.rank != group[0].stack.left.rank or _is_full(group)):
                yield group
                group = []
            products = FactorGrams.of(stack, pairs, sums=sums)
            if broken := products.broken_points():
                raise trajectory.not_finite(name, broken[0])
            group.append(Multiplied(name, stack, products))
            del stack, products
        if group:
            yield group
            del group


def _is_full(group: Sequence[Multiplied]) -> bool:
    return sum(module.products.bytes for module in group) >= _TOGETHER_BYTES


def _moving(
    modules: Iterable[tuple[str, ModuleFactors]], drift: Drift
) -> Iterator[tuple[str, ModuleFactors]]:
    """Those whose delta changed at all."""
    for name, factors in modules:
        if not all(factors.is_still(start, end) for start, end in drift.segments):
            yield name, factors
        del factors  # as long as one tensor of them is held, the files stay mapped
