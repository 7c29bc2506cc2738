"""Leading triples of a module's global, local and target deltas: what NExt sees of a trajectory."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from itertools import chain

from torch import Tensor

from nextrapolate_numerics.extraction.before_jumps import Done
from nextrapolate_numerics.extraction.decompositions import leading_triples
from nextrapolate_numerics.extraction.deltas import Delta
from nextrapolate_numerics.extraction.gram import FactorGrams
from nextrapolate_numerics.extraction.groups import Group
from nextrapolate_numerics.lowrank import Triple, unit
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.transfer import fetched


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

    @classmethod
    def joined(cls, some: Sequence["ModuleTriples"]) -> "ModuleTriples":
        """Those of one window of steps after the other."""
        if len(some) == 1:
            return some[0]
        return cls(*(Triple.joined([getattr(each, of.name) for each in some]) for of in fields(cls)))


def triples_of(
    group: Group,
    grams: FactorGrams,
    drift: Drift,
    steps: range,
    pairs: Sequence[tuple[int, int]],
    seen: Seen,
    dones: Sequence[Done],
) -> list[ModuleTriples]:
    """Triples of each module of the deltas that end at some steps, of which `pairs` tells the targets."""
    deltas, count = seen_deltas(drift, steps, pairs, seen), len(steps)
    found = leading_triples(grams, deltas, range(count), dones, 1)
    sigmas = (grams.scaling.unsqueeze(1) * found.sigma[..., 0]).cpu()
    some = group.combined(found.u[:, :, 0], found.v[:, :, 0], deltas)
    vectors = chain.from_iterable(zip(*_unit(u, v), strict=True) for u, v in some)
    triples = (Triple(sigma, u, v) for sigma, (u, v) in zip(sigmas, vectors, strict=True))
    return [ModuleTriples(all_[:count], all_[count : 2 * count], all_[2 * count :]) for all_ in triples]


def seen_deltas(drift: Drift, steps: range, pairs: Sequence[tuple[int, int]], seen: Seen) -> list[Delta]:
    """The global deltas that end at some steps, and where all are seen the local ones and the targets."""
    ends = [(0, index) for index in steps]
    if seen is Seen.ALL:
        ends += [(index - 1, index) for index in steps]
        ends += [(begin, end) for begin, end in pairs if end in steps]
    return [drift.spans(*each) for each in ends]


def _unit(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (g, b, m) and (g, b, n) of norm 1, on the CPU."""
    sign = _signs(u)
    return fetched(sign * unit(u)), fetched(sign * unit(v))


def _signs(vectors: Tensor) -> Tensor:
    """(..., 1) what makes the entry of each vector (..., d) that is largest in magnitude positive.

    Singular vectors have no sign of their own; this makes it a function of their matrix.
    """
    return vectors.gather(-1, vectors.abs().argmax(-1, keepdim=True)).sign()
