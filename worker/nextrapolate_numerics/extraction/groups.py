"""Modules that moved, a few at a time: their small matrices are decomposed together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from nextrapolate_numerics.extraction.gram import FactorGrams, Pairs
from nextrapolate_numerics.extraction.stack import Stack, stacks
from nextrapolate_numerics.series import ModuleFactors, Trajectory

_TOGETHER_BYTES = 4 << 20  # of inner products: enough for a call to be worth it, and little of a job's memory
_READ_BYTES = 32 << 20  # of factors in pages of files, which are in memory while they are worked on


@dataclass(frozen=True)
class Multiplied:
    """A module that moved, and the inner products of its factors."""

    name: str
    stack: Stack
    products: FactorGrams


def groups(
    trajectory: Trajectory, pairs: Pairs, device: torch.device, *, sums: bool
) -> Iterator[list[Multiplied]]:
    """Modules of one rank, in the order of their names.

    Args:
        trajectory: read once.
        pairs: of points whose factors are multiplied.
        device: where the work is done.
        sums: whether sums of entries are wanted.

    Raises:
        NonFiniteWeightsError: NaN or Inf in a factor.
    """
    group: list[Multiplied] = []
    for name, stack in stacks(_moving(trajectory), device):
        if group and (stack.left.rank != group[0].stack.left.rank or _is_full(group)):
            yield group
            group = []
        group.append(_multiplied(trajectory, name, stack, pairs, sums=sums))
    if group:
        yield group


def _multiplied(trajectory: Trajectory, name: str, stack: Stack, pairs: Pairs, *, sums: bool) -> Multiplied:
    products = FactorGrams.of(stack, pairs, sums=sums)
    if broken := products.broken_points():
        raise trajectory.not_finite(name, broken[0])
    return Multiplied(name, stack, products)


def _is_full(group: Sequence[Multiplied]) -> bool:
    return (
        sum(module.products.bytes for module in group) >= _TOGETHER_BYTES
        or sum(module.stack.mapped_bytes for module in group) >= _READ_BYTES
    )


def _moving(trajectory: Trajectory) -> Iterator[tuple[str, ModuleFactors]]:
    """Those whose delta changed at all; the others' factors are written again, and so have to be numbers."""
    for name, factors in trajectory.modules():
        if all(factors.is_still(start, end) for start, end in trajectory.drift.segments):
            trajectory.check_finite(name, factors, range(len(trajectory.points)))
        else:
            yield name, factors
