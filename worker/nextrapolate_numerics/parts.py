"""The leading parts of a module's speeds, told by their inner products: what NExt's default learns from.

At each step i after the origin three increments of the drift end: the global one, from the origin; the local
one, from the step before; and one between, over about 50 steps. Each over the steps that it covers is a
speed, and the leading part of a speed is the sum of its leading singular triples

    X = sum_k sigma_k u_k v_k^T,    k <= rank

A part has no sign to align, and <X, Y> = sum_kl sigma_k tau_l (u_k . x_l)(v_k . y_l) does not depend on the
basis in which vectors are written.
"""

from dataclasses import dataclass

from torch import Tensor

from nextrapolate_numerics.deltas import leading_triples
from nextrapolate_numerics.drift import Drift
from nextrapolate_numerics.gram import FactorGrams

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


def module_parts(grams: FactorGrams, drift: Drift) -> ModuleParts:
    """Parts of one module at all steps after the origin, in O(c R p^2 r^2) whatever m and n."""
    later = range(1, len(drift.steps))
    increments = [(begin, at) for at in later for begin in begins(drift, at)]
    found = leading_triples(grams, [drift.spans(*increment) for increment in increments], MOST_TRIPLES)
    steps = found.sigma.new_tensor([drift.steps[at] - drift.steps[begin] for begin, at in increments])
    speeds = grams.scaling * found.sigma / steps.unsqueeze(1)
    each = (len(later), SPEEDS * MOST_TRIPLES, -1)
    u, v = (speeds[..., None, None] * found.u).view(each), found.v.view(each)
    u_points, v_points = u @ _matrix(grams.left), v @ _matrix(grams.right)
    products = (u_points @ u.mT) * (v_points @ v.mT)
    by_point = (u_points * v_points).view(*each[:2], *grams.left.shape[:2])
    with_points = grams.scaling * by_point.sum(dim=-1)
    shape = (len(later), SPEEDS, MOST_TRIPLES)
    return ModuleParts(
        products.reshape(*shape, SPEEDS, MOST_TRIPLES).cpu(), with_points.reshape(*shape, -1).cpu()
    )


def _matrix(side: Tensor) -> Tensor:
    """Inner products (p, r, p, r) as a matrix."""
    return side.flatten(2).flatten(0, 1)
