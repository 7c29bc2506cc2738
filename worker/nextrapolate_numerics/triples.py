"""Leading triples of a module's global, local and target deltas: what NExt sees of a trajectory."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nextrapolate_numerics.deltas import Delta, leading_triples, points_of
from nextrapolate_numerics.drift import Drift
from nextrapolate_numerics.gram import FactorGrams
from nextrapolate_numerics.lowrank import Triple, signs, unit
from nextrapolate_numerics.stack import Stack


@dataclass(frozen=True)
class ModuleTriples:
    """Leading triples of one module, u and v float32, sigma float64 with the LoRA scaling in it; on the CPU.

    Signs are those of the matrices alone, not yet aligned: what they are aligned to depends on the last
    checkpoint that a method is shown.

    Attributes:
        globals: (c) of G_i = drift_i, one for each step after the origin (NExt, arXiv 2604.11446, Eq. 6).
        locals: (c) of L_i = drift_i - drift_{i-1}.
        targets: (q) of T_i = drift_{i+k} - drift_i, one for each pair (i, i + k).
    """

    globals: Triple
    locals: Triple
    targets: Triple

    def until(self, checkpoints: int, pairs: int) -> "ModuleTriples":
        """Those of the first checkpoints and of the first pairs."""
        return ModuleTriples(self.globals[:checkpoints], self.locals[:checkpoints], self.targets[:pairs])


def module_triples(
    stack: Stack, grams: FactorGrams, drift: Drift, pairs: Sequence[tuple[int, int]]
) -> ModuleTriples:
    """Triples of one module; `pairs` are indices of the drift's steps."""
    deltas = seen_deltas(drift, pairs)
    found = leading_triples(grams, deltas, 1)
    u, v = _vectors(found.u[:, 0], stack.left, deltas), _vectors(found.v[:, 0], stack.right, deltas)
    sign = signs(u)
    sigma = (stack.scaling * found.sigma[:, 0]).cpu()
    triples = Triple(sigma, (sign * unit(u)).float().cpu(), (sign * unit(v)).float().cpu())
    count = len(drift.steps) - 1
    return ModuleTriples(triples[:count], triples[count : 2 * count], triples[2 * count :])


def seen_deltas(drift: Drift, pairs: Sequence[tuple[int, int]]) -> list[Delta]:
    """The global deltas, the local ones, and the targets."""
    checkpoints = range(1, len(drift.steps))
    ends = [*((0, index) for index in checkpoints), *((index - 1, index) for index in checkpoints), *pairs]
    return [drift.spans(*each) for each in ends]


def _vectors(coordinates: Tensor, side: Tensor, deltas: Sequence[Delta]) -> Tensor:
    """The sum over points of coordinates (b, p, r) @ side (p, r, d); a delta has some at its own points."""
    vectors = side.new_zeros(len(deltas), side.shape[-1])
    for point, rows in enumerate(side):
        which = [index for index, delta in enumerate(deltas) if point in points_of(delta)]
        vectors[which] += coordinates[which, point] @ rows
    return vectors
