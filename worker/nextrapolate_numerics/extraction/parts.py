"""The leading parts of a module's speeds: what NExt's default learns from, and what its updates are sums of.

At each step i after the origin three increments of the drift end: the global one, from the origin; the local
one, from the step before; and one between, over about 50 steps. Each over the steps that it covers is a
speed, and the leading part of a speed is the sum of its leading singular triples

    X = sum_k sigma_k u_k v_k^T,    k <= rank

A part has no sign to align, and <X, Y> = sum_kl sigma_k tau_l (u_k . x_l)(v_k . y_l) does not depend on the
basis in which vectors are written: what is learnt from are inner products alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.before_jumps import Done, done_before
from nextrapolate_numerics.extraction.decompositions import StackedTriples, leading_triples
from nextrapolate_numerics.extraction.deltas import Delta, owners, points_of
from nextrapolate_numerics.extraction.gram import FactorGrams, Pairs
from nextrapolate_numerics.extraction.tiles import TiledGroup
from nextrapolate_numerics.lowrank import LowRank
from nextrapolate_numerics.series import Drift, StoredModule

SPEEDS = 3  # global, between, local: the order of all that follows
MAX_TRIPLES = 8
_BETWEEN_STEPS = 50  # long enough to average the noise of batches, short enough to know where the run heads

_HELD = 1 << 20  # entries of such coordinates that a CPU's thread holds, of u and of v each: 8 MB of float64
_HELD_ON_GPU = 1 << 27


@dataclass(frozen=True)
class ModuleParts:
    """Inner products of the parts of one module's speeds, float64 on the CPU, LoRA scaling included.

    Attributes:
        ranks: R of them, of the parts that are looked at.
        products: (c, R, 3, 3) <X_a, X_b> of the parts at the c steps.
        with_coming: (c, R, 3, h) <X_a, increment> of the increments from each step to those that came within
            the horizon which was extracted for, the next step first; 0 where there are less than h.
    """

    ranks: tuple[int, ...]
    products: Tensor
    with_coming: Tensor

    def until(self, checkpoints: int) -> "ModuleParts":
        """Those of the first checkpoints; what came after these is not taken away."""
        return ModuleParts(self.ranks, self.products[:checkpoints], self.with_coming[:checkpoints])

    @classmethod
    def joined(cls, some: Sequence["ModuleParts"]) -> "ModuleParts":
        """Those of one window of steps after the other."""
        products, with_coming = (
            torch.cat(side) for side in zip(*((of.products, of.with_coming) for of in some), strict=True)
        )
        return cls(some[0].ranks, products, with_coming)

    def of_rank(self, rank: int) -> tuple[Tensor, Tensor]:
        """Inner products (c, 3, 3) of the parts with one another, and (c, 3, h) with what came."""
        index = self.ranks.index(rank)
        return self.products[:, index], self.with_coming[:, index]


def begins(drift: Drift, at: int) -> tuple[int, int, int]:
    """Indices of the steps from which the three speeds at step `at` are measured."""
    return 0, min(drift.nearest(drift.steps[at] - _BETWEEN_STEPS), at - 1), at - 1


def increments(drift: Drift, at: int) -> list[Delta]:
    """What the three speeds at a step are of."""
    return [drift.spans(begin, at) for begin in begins(drift, at)]


def parts_of(
    grams: FactorGrams,
    drift: Drift,
    steps: range,
    ranks: tuple[int, ...],
    dones: Sequence[Done],
    horizon_steps: int,
) -> list[ModuleParts]:
    """Parts of each module at some steps; O(c R p r^2) for R triples, whatever m and n.

    Args:
        grams: products of the points of all increments of a step with one another are there.
        drift: of the run.
        steps: indices of c steps, after the origin.
        ranks: of the parts that are looked at.
        dones: what `done_before` tells of the last global delta.
        horizon_steps: how far ahead methods are asked.
    """
    together, longest = _steps_together(grams, max(ranks)), drift.longest(horizon_steps)
    some = [
        _some_parts(grams, drift, steps[first : first + together], ranks, dones, longest)
        for first in range(0, len(steps), together)
    ]
    products, with_coming = (torch.cat(side, dim=1) for side in zip(*some, strict=True))
    return [ModuleParts(ranks, *of_module) for of_module in zip(products, with_coming, strict=True)]


def _steps_together(grams: FactorGrams, count: int) -> int:
    """At how many steps the triples of all increments are held in the coordinates of all points."""
    held = _HELD if grams.device.type == "cpu" else _HELD_ON_GPU
    return max(1, held // (len(grams) * SPEEDS * count * len(grams.where) * grams.rank))


def _some_parts(
    grams: FactorGrams,
    drift: Drift,
    steps: Sequence[int],
    ranks: tuple[int, ...],
    dones: Sequence[Done],
    longest: int,
) -> tuple[Tensor, Tensor]:
    """What ModuleParts tells of each module at some of the c steps, by index; on the CPU."""
    deltas = [delta for at in steps for delta in increments(drift, at)]
    lengths = [drift.steps[at] - drift.steps[begin] for at in steps for begin in begins(drift, at)]
    which = owners(deltas, drift.points, grams.device)
    found = leading_triples(grams, deltas, range(0, len(deltas), SPEEDS), dones, max(ranks))
    products, with_points = _products(grams, found, lengths, which, ranks)
    coming = _coming(drift, steps, longest).to(grams.device)
    with_coming = torch.einsum("gcsap,chp->gcsah", with_points, coming)
    return products.cpu(), with_coming.cpu()


def _coming(drift: Drift, steps: Sequence[int], longest: int) -> Tensor:
    """The increments that came after each of c steps, as combinations of points, (c, h, p) float64."""
    most = max(len(drift.coming(at, longest)) for at in range(len(drift.steps)))
    found = torch.zeros(len(steps), most, drift.points, dtype=torch.float64)
    for increments_after, at in zip(found, steps, strict=True):
        ends = list(drift.coming(at, longest))
        increments_after[: len(ends)] = drift.coefficients[ends] - drift.coefficients[at]
    return found


def _products(
    grams: FactorGrams, found: StackedTriples, steps: list[int], which: list[Tensor], ranks: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Inner products of the parts with one another, (g, c, R, 3, 3), and with the points, (g, c, R, 3, p).

    Args:
        grams: of the modules.
        found: triples of all increments.
        steps: how long each of these is.
        which: of them has each point.
        ranks: of the parts that are looked at.
    """
    g, points, count = len(grams), len(grams.where), max(ranks)
    shape = (g, len(steps) // SPEEDS, SPEEDS, count)
    each = (*shape[:2], SPEEDS * count, -1)
    speeds = grams.scaling[:, None, None] * found.sigma / found.sigma.new_tensor(steps).unsqueeze(1)
    u_points = _with_points(found.u, grams.left, grams.where, which).view(each)
    v_points = _with_points(found.v, grams.right, grams.where, which).view(each)
    u_points *= speeds.view(*each[:3], 1)
    u, v = (speeds[..., None, None] * found.u).view(each), found.v.view(each)
    products = ((u_points @ u.mT) * (v_points @ v.mT)).view(*shape, SPEEDS, count)
    with_points = (u_points * v_points).view(*shape, points, -1).sum(dim=-1)
    with_points *= grams.scaling[:, None, None, None, None]
    return (
        torch.stack([products[..., :rank, :, :rank].sum(dim=(3, 5)) for rank in ranks], dim=2),
        torch.stack([with_points[:, :, :, :rank].sum(dim=3) for rank in ranks], dim=2),
    )


def _with_points(coordinates: Tensor, products: Tensor, where: Tensor, which: list[Tensor]) -> Tensor:
    """Inner products of vectors with all points' factors, (g, b, k, p, r), from their own coordinates there.

    A vector has coordinates at few points: what others would contribute is not multiplied. A product that was
    not wanted counts as 0.
    """
    found = torch.zeros_like(coordinates).flatten(3)
    for point, deltas in enumerate(which):
        if not len(deltas):
            continue
        with_all = products[:, where[point]].transpose(1, 2)  # (g, r, p, r)
        with_all[:, :, where[point] < 0] = 0
        own = coordinates[:, deltas, :, point]
        with_all = own.flatten(1, 2) @ with_all.flatten(2)
        found.index_add_(1, deltas, with_all.view(*own.shape[:3], found.shape[-1]))
    return found.view_as(coordinates)


def sum_of_parts(
    module: StoredModule, increments: Sequence[Delta], rank: int, weights: Sequence[float]
) -> LowRank:
    """sum_a weights[a] X_a of the leading parts of some increments, LoRA scaling included; float64.

    Each X_a is as exact as inner products of its points are: to some 1e-8 of what the points' deltas measure,
    which is less than float32 rounds their factors by.

    Args:
        module: at the points that the increments are made of.
        increments: by those points.
        rank: triples of each part; the sum has as many for each increment.
        weights: one for each increment.
    """
    pairs = [
        (one, other) for increment in increments for one, other in product(points_of(increment), repeat=2)
    ]
    grams = TiledGroup.of([("", module)]).multiplied(Pairs.of(len(module.B), pairs))
    found = [
        leading_triples(grams, [increment], [0], done_before(increment, grams), rank)
        for increment in increments
    ]
    sizes = [module.scaling * w * each.sigma[0, 0] for w, each in zip(weights, found, strict=True)]
    u, v = torch.cat([each.u[0, 0] for each in found]), torch.cat([each.v[0, 0] for each in found])
    u *= torch.cat(sizes)[:, None, None]
    left, right = u.new_zeros(module.B[0].shape[0], len(u)), v.new_zeros(len(v), module.A[0].shape[1])
    for point, (B, A) in enumerate(zip(module.B, module.A, strict=True)):
        left.addmm_(B.read().double(), u[:, point].mT)
        right.addmm_(v[:, point], A.read().double())
    return LowRank(left, right)
