"""The leading parts of a module's speeds, told by their inner products: what NExt's default learns from.

At each step i after the origin three increments of the drift end: the global one, from the origin; the local
one, from the step before; and one between, over about 50 steps. Each over the steps that it covers is a
speed, and the leading part of a speed is the sum of its leading singular triples

    X = sum_k sigma_k u_k v_k^T,    k <= rank

A part has no sign to align, and <X, Y> = sum_kl sigma_k tau_l (u_k . x_l)(v_k . y_l) does not depend on the
basis in which vectors are written.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nextrapolate_numerics.drift import Drift
from nextrapolate_numerics.lowrank import leading_triples
from nextrapolate_numerics.trajectory import ModuleFactors

SPEEDS = 3  # global, between, local: the order of all that follows
MOST_TRIPLES = 8
_BETWEEN_STEPS = 50  # long enough to average the noise of batches, short enough to know where the run heads


@dataclass(frozen=True)
class ModuleParts:
    """Inner products of the parts of one module's speeds, float64 on the CPU, LoRA scaling included.

    Attributes:
        products: (c, 3, R, 3, R) <X_ak, X_bl> of the triples of the c steps' speeds, R = MOST_TRIPLES of
            each; 0 where a speed has fewer.
        with_points: (c, 3, R, p) <X_ak, dW_point>.
    """

    products: Tensor
    with_points: Tensor

    def until(self, checkpoints: int) -> "ModuleParts":
        """Those of the first checkpoints."""
        return ModuleParts(self.products[:checkpoints], self.with_points[:checkpoints])

    def of_rank(self, rank: int) -> tuple[Tensor, Tensor]:
        """Inner products (c, 3, 3) of the parts with one another, and (c, 3, p) with the points' deltas."""
        products = self.products[:, :, :rank, :, :rank].sum(dim=(2, 4))
        return products, self.with_points[:, :, :rank].sum(dim=2)


def begins(drift: Drift, at: int) -> tuple[int, int, int]:
    """Indices of the steps from which the three speeds at step `at` are measured."""
    return 0, min(drift.nearest(drift.steps[at] - _BETWEEN_STEPS), at - 1), at - 1


def module_parts(factors: ModuleFactors, drift: Drift) -> ModuleParts:
    """Parts of one module at all steps after the origin, from its factors.

    One step after the other: O((p r + R) (m + n)) memory, whatever the number of steps.
    """
    exact = ModuleFactors(factors.B.double(), factors.A.double(), factors.scaling)
    found = [_parts_at(exact, drift, at) for at in range(1, len(drift.steps))]
    products, with_points = (torch.stack(side).cpu() for side in zip(*found, strict=True))
    return ModuleParts(products, with_points)


def _parts_at(exact: ModuleFactors, drift: Drift, at: int) -> tuple[Tensor, Tensor]:
    """Inner products of the parts at one step, (3, R, 3, R) and (3, R, p), from float64 factors."""
    begun = begins(drift, at)
    triples = leading_triples(lambda index: exact.path(drift.spans(begun[index], at)), SPEEDS, MOST_TRIPLES)
    steps = triples.sigma.new_tensor([drift.steps[at] - drift.steps[begin] for begin in begun])
    speeds = exact.scaling * triples.sigma / steps.unsqueeze(1)
    u, v = (speeds.unsqueeze(2) * triples.u).flatten(0, 1), triples.v.flatten(0, 1)
    products = (u @ u.mT) * (v @ v.mT)
    with_points = exact.scaling * ((u @ exact.B) * (v @ exact.A.mT)).sum(dim=-1).mT
    each = (SPEEDS, MOST_TRIPLES)
    return products.reshape(*each, *each), with_points.reshape(*each, -1)
