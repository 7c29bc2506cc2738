"""From a sum of low-rank matrices back to the factors of an adapter.

B A = (B R^-1)(R A) for any R, and Adam does not see the product but the factors. A refit that is to be
trained on therefore keeps the run's own *gauge*: from the rank-r truncation B* A*, A* with orthonormal rows,
it returns

    A' = R A*,  B' = B* R^-1,  R = A_c A*^T

whose A' is the projection of the run's own A_c on the new row space: the nearest to A_c that the new matrix
allows. Where A_c hardly reaches a new row, R = P S Q has a small singular value, and R^-1 makes factors whose
product bfloat16 rounds by up to a sixth. Such values are lifted to a thirtieth of the largest: the product
stays what it is, and A' leaves the projection along these rows alone.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nextrapolate_numerics.gram_svd import ROUNDING, self_product
from nextrapolate_numerics.lowrank import LowRank

_MAX_CONDITION = 30.0  # of R: on real runs bfloat16 then rounds B A by 1.4 % at most, by .2 % as a rule
_OWN_CONDITION = 1e3  # of A_c, up to which R may have the same: own factors come back where nothing is added
_BEYOND = 8  # singular values behind the cut that are shown


@dataclass(frozen=True)
class Refit:
    """New factors of one module.

    Attributes:
        factors: float64, of the wanted rank.
        wanted: norm of what was wanted.
        discarded: share of its square that the factors do not hold.
        gauge_condition: condition number of R before any of its singular values was lifted; None where no
            gauge had to be found.
        in_gauge: False where the run's A is 0, and the factors are balanced instead.
        spectrum: float64 singular values of what was wanted, descending, as far as the factors hold them and
            some further; empty where nothing was added.
        kept: how many of them the factors hold.
    """

    factors: LowRank
    wanted: float
    discarded: float
    gauge_condition: float | None
    in_gauge: bool
    spectrum: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    kept: int = 0


def refit_same_rank(wanted: LowRank, own: LowRank) -> Refit:
    """Truncate a matrix to the rank of the run's `own` factors, in the run's gauge.

    Args:
        wanted: (m, n) float64, the last checkpoint with an update on top, over the LoRA scaling.
        own: (m, n), rank r: the last checkpoint's factors.

    Returns:
        Factors of rank r. Of the matrix that `own` is they are `own`'s, as long as its A has full rank.
    """
    A = own.A.double()
    rank = min(own.rank, own.shape[1])
    values = wanted.singular_values()[: rank + _BEYOND]
    leading = wanted.leading(rank)  # those behind the cut would take many rounds, and are not kept
    found = min(rank, int((values > ROUNDING * values[0]).sum()))
    kept, discarded = leading.truncated(found)
    basis = _completed(kept.A, A, rank)
    B = wanted.B @ (wanted.A @ basis.mT)
    gauge = A @ basis.mT
    turned, lengths, rows = torch.linalg.svd(gauge, full_matrices=False)
    condition = float(lengths[0] / lengths[-1]) if lengths[-1] > 0 else float("inf")
    in_gauge = bool(lengths[0] > 0)
    if in_gauge:
        lengths = lengths.clamp(min=float(lengths[0]) / _highest_condition(A))
        factors = LowRank(B @ rows.mT / lengths @ turned.mT, (turned * lengths) @ rows @ basis)
    else:
        factors = padded(_balanced(LowRank(B, basis)), own.rank)
    return Refit(factors, wanted.norm(), discarded, condition, in_gauge, spectrum=values, kept=found)


def refit_grown(update: LowRank, own: LowRank) -> Refit:
    """Set `update` beside the run's `own` factors, which stay as they are: exact, at a larger rank."""
    values = update.singular_values()
    found = int((values > ROUNDING * values[0]).sum())
    added, cut = update.truncated(found)
    spectrum = (own.double() + update).singular_values()
    wanted = float(spectrum.norm())
    discarded = cut * (update.norm() / wanted) ** 2 if wanted > 0 else 0.0
    factors = own.double() + _balanced(added)
    return Refit(factors, wanted, discarded, None, in_gauge=True, spectrum=spectrum, kept=len(spectrum))


def padded(factors: LowRank, rank: int) -> LowRank:
    """The same matrix at a larger rank: columns and rows of zeros."""
    missing = rank - factors.rank
    pad = torch.nn.functional.pad
    return LowRank(pad(factors.B, (0, missing)), pad(factors.A, (0, 0, 0, missing)))


def _highest_condition(A: Tensor) -> float:
    """Of R: what rounding bears, or what the run's own A has."""
    squares = torch.linalg.eigvalsh(self_product(A if len(A) <= A.shape[1] else A.mT)).clamp(min=0)
    own = float((squares[-1] / squares[0]).sqrt()) if squares[0] > 0 else float("inf")
    return max(_MAX_CONDITION, own) if own <= _OWN_CONDITION else _MAX_CONDITION


def _completed(basis: Tensor, A: Tensor, rank: int) -> Tensor:
    """Orthonormal rows (rank, n): `basis` (k, n), and what A (r, n) has beyond it.

    Where the new matrix has less than r directions, the free rows stay the run's own and can go on training.
    Where A has no more of its own, as after a refit that was padded, they are any.
    """
    missing = rank - len(basis)
    if missing == 0:
        return basis
    rest = A - (A @ basis.mT) @ basis
    directions = torch.linalg.svd(rest, full_matrices=False).Vh[:missing]
    # What is left of A may be rounding, whose directions are not orthogonal to the basis.
    orthonormal = torch.linalg.qr(torch.cat([basis, directions]).mT).Q.mT
    return torch.cat([basis, orthonormal[len(basis) :]])


def _balanced(factors: LowRank) -> LowRank:
    """Each column of B and row of A at the same norm, the square root of their product."""
    lengths = factors.B.norm(dim=0) / factors.A.norm(dim=1)
    scale = torch.where(lengths > 0, lengths, 1.0).sqrt()
    return LowRank(factors.B / scale, factors.A * scale[:, None])
