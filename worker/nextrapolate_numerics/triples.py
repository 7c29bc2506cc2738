"""Leading triples of a module's global, local and target deltas: what NExt sees of a trajectory."""

from collections.abc import Sequence
from dataclasses import dataclass

from nextrapolate_numerics.drift import Drift
from nextrapolate_numerics.lowrank import LowRank, Triple, leading_triples
from nextrapolate_numerics.trajectory import ModuleFactors


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


def module_triples(factors: ModuleFactors, drift: Drift, pairs: Sequence[tuple[int, int]]) -> ModuleTriples:
    """Triples of one module, from its factors; `pairs` are indices of the drift's steps."""
    checkpoints = range(1, len(drift.steps))
    global_pairs = [(0, index) for index in checkpoints]
    local_pairs = [(index - 1, index) for index in checkpoints]
    ends = [*global_pairs, *local_pairs, *pairs]

    def delta(index: int) -> LowRank:
        return factors.path(drift.spans(*ends[index]))

    triples = leading_triples(delta, len(ends), 1)[:, 0]
    stored = Triple(triples.sigma.cpu() * factors.scaling, triples.u.float().cpu(), triples.v.float().cpu())
    count = len(checkpoints)
    return ModuleTriples(stored[:count], stored[count : 2 * count], stored[2 * count :])
