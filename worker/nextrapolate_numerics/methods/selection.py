"""Entries of a low-rank matrix, selected one by one, and the low-rank matrix nearest to what is left.

Selecting entries takes the low rank away: of X (m, n) of rank r, half of the entries are a matrix of rank
min(m, n). Its rows are made a chunk of 2^22 entries at a time, from the factors, as often as they are
needed, and its leading singular vectors come from subspace iteration (Halko, Martinsson and Tropp, arXiv
0909.4061, Algorithm 4.4), each iteration one pass over the chunks:

    V <- orth(sum over chunks F^T (F V)),    F the chunk's rows

Beside the chunk, and one of what the selection is added to, (m + n) (r + some) numbers are in memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nextrapolate_numerics.lowrank import LowRank

Pick = Callable[[Tensor], Tensor]
"""From the next rows of X to those of the selection; called with all rows in order, a chunk at a time."""

_CHUNK_ENTRIES = 1 << 22  # 16 MB of float32
_OVERSAMPLING = 16
_ITERATIONS = 8
_HALF = 16  # bits of half a float32


@dataclass(frozen=True)
class Selection:
    """Entries of X = B A, the others being 0.

    Attributes:
        matrix: X, on the device where the work is done; its entries have to be within float32.
        picking: starts anew with the first row, and has to pick the same entries each time.
        onto: what the selection is added to before it is fitted, of the rank of the fit at most; None for
            nothing.
    """

    matrix: LowRank
    picking: Callable[[], Pick]
    onto: LowRank | None = None

    def chunks(self) -> Iterator[Tensor]:
        """The selection's rows, float32, a chunk after the other."""
        pick = self.picking()
        for rows in chunks(self.matrix):
            yield pick(rows)

    def fitted(self, rank: int) -> "Fit":
        """A matrix of rank `rank` at most, all but the nearest one."""
        m, n = self.matrix.shape
        V = self._start(min(rank + _OVERSAMPLING, m, n))
        for _ in range(_ITERATIONS):
            image = torch.zeros_like(V)
            for _, rows in self._sums():
                image += (rows.mT @ (rows @ V.float())).double()
            V = torch.linalg.qr(image).Q
        images, energy, whole = [], 0.0, 0.0
        for selected, rows in self._sums():
            images.append((rows @ V.float()).double())
            energy += float(selected.double().square().sum())
            whole += float(rows.double().square().sum())
        U, S, Wt = torch.linalg.svd(torch.cat(images), full_matrices=False)
        kept = min(rank, len(S))
        factors = LowRank(U[:, :kept] * S[:kept], Wt[:kept] @ V.mT)
        lacks = max(0.0, whole - float(S[:kept].square().sum()))
        return Fit(factors, energy, min(lacks, energy))  # the nearest matrix is no further off than `onto`

    def _sums(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunk by chunk the selection's rows, and those with what they are added to."""
        if self.onto is None:
            yield from ((rows, rows) for rows in self.chunks())
        else:
            under = chunks(self.onto)
            yield from ((rows, below.add_(rows)) for rows, below in zip(self.chunks(), under, strict=True))

    def _start(self, width: int) -> Tensor:
        """(n, width) orthonormal columns: the row space where most of what is fitted is, and noise."""
        A = (self.onto or self.matrix).A.double()
        noise = torch.randn(width, A.shape[1], generator=torch.Generator().manual_seed(0), dtype=A.dtype)
        noise[: len(A)] = A[:width].cpu() / A.norm().cpu().clamp(min=1e-300)
        basis: Tensor = torch.linalg.qr(noise.to(A.device).mT).Q
        return basis


@dataclass(frozen=True)
class Fit:
    """A low-rank matrix in place of a selection, or of the sum that it is part of.

    Attributes:
        factors: float64; A has orthonormal rows.
        energy: squared norm of the selection.
        discarded: squared norm of what the factors do not hold, at most all of the selection's.
    """

    factors: LowRank
    energy: float
    discarded: float


def largest(matrix: LowRank, share: float) -> Selection:
    """The share of X's entries that are largest in magnitude; of equal ones at its edge, all."""
    m, n = matrix.shape
    threshold = _magnitude(matrix, max(1, round(share * m * n)))

    def pick(rows: Tensor) -> Tensor:
        return torch.where(rows.abs() >= threshold, rows, 0.0)

    return Selection(matrix, lambda: pick)


def _magnitude(matrix: LowRank, count: int) -> float:
    """The magnitude that `count` of X's entries reach, no more than are equal: exact, in two passes.

    The bits of floats that are not negative ascend as the floats do: the first pass counts the upper halves
    of the bits, the second the lower halves of those whose upper half is the one that was looked for.
    """
    bits = 0
    for shift in (_HALF, 0):
        counts = torch.zeros(1 << _HALF, dtype=torch.int64)
        for rows in chunks(matrix):
            magnitudes = rows.abs().view(torch.int32).flatten()
            if shift == 0:
                magnitudes = magnitudes[magnitudes >> _HALF == bits >> _HALF]
            halves = (magnitudes >> shift) & ((1 << _HALF) - 1)
            counts += torch.bincount(halves, minlength=len(counts)).cpu()
        reached = counts.flip(0).cumsum(0).flip(0)
        half = int((reached >= count).nonzero().max())
        count -= int(reached[half] - counts[half])
        bits |= half << shift
    return float(torch.tensor(bits, dtype=torch.int32).view(torch.float32))


def chunks(matrix: LowRank) -> Iterator[Tensor]:
    """The rows of X, float32, a chunk after the other; the chunks depend on the shape alone."""
    m, n = matrix.shape
    rows = max(1, _CHUNK_ENTRIES // n)
    B, A = matrix.B.float(), matrix.A.float()
    for first in range(0, m, rows):
        yield B[first : first + rows] @ A
