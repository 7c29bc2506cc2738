"""Leading triples and spectra of a module's deltas, told from the inner products of its factors."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nextrapolate_numerics.extraction.before_jumps import Done, by_last_spans
from nextrapolate_numerics.extraction.deltas import Delta, batches
from nextrapolate_numerics.extraction.gram import FactorGrams
from nextrapolate_numerics.gram_svd import Core, inverse

_ROUNDING = 1e-7  # of the first singular value: what inner products in float64 hardly tell from 0


@dataclass(frozen=True)
class StackedTriples:
    """Leading triples in the coordinates of a module's stack, the LoRA scaling left out; float64.

    Attributes:
        sigma: (b, k), descending.
        u: (b, k, p, r): the singular vector is the sum over points of u[.., p] @ stack.left[p].
        v: (b, k, p, r), likewise of stack.right. Both are 0 where sigma is.
    """

    sigma: Tensor
    u: Tensor
    v: Tensor


def leading_triples(
    modules: Sequence[FactorGrams],
    deltas: Sequence[Delta],
    globals_: Sequence[int],
    dones: Sequence[Done],
    count: int,
) -> list[StackedTriples]:
    """The `count` leading triples of each delta of each module; where it has fewer, the others are 0.

    One whose singular value inner products do not tell from 0 counts as none.

    Args:
        modules: of one rank; products of all points of a delta with one another are there.
        deltas: of any two steps.
        globals_: which of them go on from what is in `dones`; they end at one step after the other.
        dones: what `done_before` tells of the last of those.
        count: k.
    """
    points, rank = len(modules[0].where), modules[0].left.shape[-1]
    sigma = modules[0].left.new_zeros(len(modules), len(deltas), count)
    u, v = (sigma.new_zeros(*sigma.shape, points, rank) for _ in range(2))
    others = sorted(set(range(len(deltas))).difference(globals_))
    for indices, batched in (
        (globals_, by_last_spans([deltas[index] for index in globals_], dones, modules)),
        (others, ((dones[0], batch) for batch in batches([deltas[index] for index in others], modules))),
    ):
        for done, batch in batched:
            core = Core.leading(*done.sides_with(batch, modules), count)
            values = core.values.sqrt()
            values[values <= _ROUNDING * values[:, :1]] = 0
            found = values.shape[-1]
            over = inverse(values).unsqueeze(-2)
            which = [indices[each] for each in batch.which]
            left, right = done.by_point(batch, core.left * over, core.right * over**2, points)
            for room, of_batch in ((sigma, values), (u, left), (v, right)):
                room[:, which, :found] = of_batch.view(len(modules), len(which), *of_batch.shape[1:])
    return [StackedTriples(*of_module) for of_module in zip(sigma, u, v, strict=True)]


def global_spectra(
    modules: Sequence[FactorGrams], deltas: Sequence[Delta], dones: Sequence[Done]
) -> list[list[Tensor]]:
    """Singular values of each module's deltas, descending, float64 on the CPU, LoRA scaling included.

    Args:
        modules: of one rank; products of all points of a delta with one another are there.
        deltas: from one origin to one step after the other.
        dones: what `done_before` tells of the last of them.

    Returns:
        All values of a delta of one span; of others those that are more than 3e-6 of the largest.
    """
    found: list[list[Tensor]] = [[] for _ in modules]
    for done, batch in by_last_spans(deltas, dones, modules):
        values = Core.spectrum(*done.sides_with(batch, modules)).cpu()
        for spectra, grams, own in zip(found, modules, values.chunk(len(modules)), strict=True):
            spectra.extend(grams.scaling * own)
    return found
