"""Leading triples of a module's global, local and target deltas: what NExt sees of a trajectory."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.before_jumps import Done
from nextrapolate_numerics.extraction.decompositions import leading_triples
from nextrapolate_numerics.extraction.deltas import Delta, owners
from nextrapolate_numerics.extraction.gram import FactorGrams
from nextrapolate_numerics.extraction.stack import Side, Stack
from nextrapolate_numerics.lowrank import Triple, unit
from nextrapolate_numerics.series import Drift


class Seen(IntEnum):
    """Whose leading triples are told; each includes those before it."""

    NONE = 0
    GLOBALS = 1
    ALL = 2


@dataclass(frozen=True)
class ModuleTriples:
    """Leading triples of one module, u and v float32, sigma float64 with the LoRA scaling in it; on the CPU.

    Signs are those of the matrices alone, not yet aligned: what they are aligned to depends on the last
    checkpoint that a method is shown.

    Attributes:
        globals: (c) of G_i = drift_i, one for each step after the origin (NExt, arXiv 2604.11446, Eq. 6).
        locals: (c) of L_i = drift_i - drift_{i-1}; none where the globals alone are wanted.
        targets: (q) of T_i = drift_{i+k} - drift_i, one for each pair (i, i + k); likewise.
    """

    globals: Triple
    locals: Triple
    targets: Triple

    def until(self, checkpoints: int, pairs: int) -> "ModuleTriples":
        """Those of the first checkpoints and of the first pairs."""
        return ModuleTriples(self.globals[:checkpoints], self.locals[:checkpoints], self.targets[:pairs])


def triples_of(
    stacks: Sequence[Stack],
    grams: FactorGrams,
    drift: Drift,
    pairs: Sequence[tuple[int, int]],
    seen: Seen,
    dones: Sequence[Done],
) -> list[ModuleTriples]:
    """Triples of each module; `pairs` are indices of the drift's steps."""
    deltas, count = seen_deltas(drift, pairs, seen), len(drift.steps) - 1
    found = leading_triples(grams, deltas, range(count), dones, 1)
    sigmas = (grams.scaling.unsqueeze(1) * found.sigma[..., 0]).cpu()
    triples = (
        Triple(sigma, *_unit(u[:, 0], v[:, 0], stack, deltas))
        for stack, sigma, u, v in zip(stacks, sigmas, found.u, found.v, strict=True)
    )
    return [ModuleTriples(all_[:count], all_[count : 2 * count], all_[2 * count :]) for all_ in triples]


def seen_deltas(drift: Drift, pairs: Sequence[tuple[int, int]], seen: Seen) -> list[Delta]:
    """The global deltas, and where all are seen the local ones and the targets."""
    checkpoints = range(1, len(drift.steps))
    ends = [(0, index) for index in checkpoints]
    if seen is Seen.ALL:
        ends += [*((index - 1, index) for index in checkpoints), *pairs]
    return [drift.spans(*each) for each in ends]


def _unit(u: Tensor, v: Tensor, stack: Stack, deltas: Sequence[Delta]) -> tuple[Tensor, Tensor]:
    """Vectors (b, m) and (b, n) float32 on the CPU, from their coordinates (b, p, r)."""
    vectors = combined if u.device.type == "cpu" else combined_at_once
    u, v = vectors(u, stack.left, deltas), vectors(v, stack.right, deltas)
    sign = _signs(u)
    return (sign * unit(u)).cpu(), (sign * unit(v)).cpu()


def _signs(vectors: Tensor) -> Tensor:
    """(..., 1) what makes the entry of each vector (..., d) that is largest in magnitude positive.

    Singular vectors have no sign of their own; this makes it a function of their matrix.
    """
    return vectors.gather(-1, vectors.abs().argmax(-1, keepdim=True)).sign()


def combined_at_once(coordinates: Tensor, side: Side, deltas: Sequence[Delta]) -> Tensor:
    """What `combined` gives; points that a delta does not have count, too: a GPU minds calls more."""
    return (coordinates.flatten(1) @ side.rows()).float()


def combined(coordinates: Tensor, side: Side, deltas: Sequence[Delta]) -> Tensor:
    """The sum over points of coordinates (b, p, r) @ factors (p, r, d), 0 but at a delta's own; float32."""
    which = owners(deltas, len(side), coordinates.device)
    own = [coordinates[indices, point] for point, indices in enumerate(which)]
    vectors = []
    for parts in side.ranges(together=1):
        sums = coordinates.new_zeros(len(deltas), parts[0].shape[side.long])
        for indices, rows, part in zip(which, own, parts, strict=True):
            sums.index_add_(0, indices, rows @ (part if side.long else part.mT).double())
        vectors.append(sums.float())
    return torch.cat(vectors, dim=1)
