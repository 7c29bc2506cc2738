"""Leading triples and spectra of a module's deltas, told from the inner products of its factors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.before_jumps import Done, by_last_spans
from nextrapolate_numerics.extraction.deltas import Delta, batches
from nextrapolate_numerics.extraction.gram import FactorGrams
from nextrapolate_numerics.gram_svd import ROUNDING, Core, inverse

_NOTHING = 1e-76  # what is left of float32 factors that cancel; its square can be divided by


@dataclass(frozen=True)
class StackedTriples:
    """Leading triples of g modules in the coordinates of their factors, the LoRA scalings left out; float64.

    Attributes:
        sigma: (g, b, k), descending.
        u: (g, b, k, p, r): the singular vector is the sum over points of u[.., p] @ B_p^T.
        v: (g, b, k, p, r), likewise of A_p. Both are 0 where sigma is.
    """

    sigma: Tensor
    u: Tensor
    v: Tensor


def leading_triples(
    grams: FactorGrams,
    deltas: Sequence[Delta],
    globals_: Sequence[int],
    dones: Sequence[Done],
    count: int,
) -> StackedTriples:
    """The `count` leading triples of each delta of each module; where it has fewer, the others are 0.

    One whose singular value inner products do not tell from 0 counts as none.

    Args:
        grams: products of all points of a delta with one another are there.
        deltas: of any two steps.
        globals_: which of them go on from what is in `dones`; they end at one step after the other.
        dones: what `done_before` tells of the last of those.
        count: k.
    """
    points = len(grams.where)
    sigma = grams.left.new_zeros(len(grams), len(deltas), count)
    u, v = (sigma.new_zeros(*sigma.shape, points, grams.rank) for _ in range(2))
    first, others = {deltas[index]: index for index in globals_}, []
    for index, delta in enumerate(deltas):
        if delta not in first:
            first[delta] = index
            others.append(index)
    for indices, batched in (
        (globals_, by_last_spans([deltas[index] for index in globals_], dones, grams)),
        (others, ((dones[0], batch) for batch in batches([deltas[index] for index in others], grams))),
    ):
        for done, batch in batched:
            core = Core.leading(*done.sides_with(batch, grams), count)
            values = core.values.sqrt()
            known = ROUNDING * torch.maximum(values[:, :1], batch.lengths(grams))
            values[(values <= known) | (values < _NOTHING)] = 0
            found = values.shape[-1]
            over = inverse(values).unsqueeze(-2)
            which = [indices[each] for each in batch.which]
            left, right = done.by_point(batch, core.left * over, core.right * over**2, points)
            for room, of_batch in ((sigma, values), (u, left), (v, right)):
                room[:, which, :found] = of_batch.view(len(grams), len(which), *of_batch.shape[1:])
    for index, delta in enumerate(deltas):
        if (same := first[delta]) != index:  # the first local delta is the first global one
            for room in (sigma, u, v):
                room[:, index] = room[:, same]
    return StackedTriples(sigma, u, v)


def global_spectra(grams: FactorGrams, deltas: Sequence[Delta], dones: Sequence[Done]) -> Iterator[Tensor]:
    """Singular values of each module's deltas, float64 on the CPU, LoRA scaling included.

    Args:
        grams: products of all points of a delta with one another are there.
        deltas: from one origin to one step after the other.
        dones: what `done_before` tells of the last of them.

    Yields:
        (g, b, q) singular values, descending, of the g modules' next b deltas. Of a delta of one span all are
        there. Of others those above 3e-6 of the largest are; where the drift is small beside the adapter,
        rounding may add some that are none. A delta that cannot be told from 0 has zeros.
    """
    for done, batch in by_last_spans(deltas, dones, grams):
        values = Core.spectrum(*done.sides_with(batch, grams))
        values[values[:, 0] <= ROUNDING * batch.lengths(grams)[:, 0]] = 0
        yield (grams.scaling[:, None, None] * values.view(len(grams), len(batch.which), -1)).cpu()
