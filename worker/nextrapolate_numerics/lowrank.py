"""The carrier of every delta: a matrix kept as the product of two thin factors, never as itself.

For X = B A with B (m, r) and A (r, n), everything here costs O((m + n) r^2), and none of it builds an (m, n)
matrix. Factors may be float32 or float64. Inner products and small cores are float64: a float32 Gram matrix
of two nearly dependent blocks loses half its digits, and the factors of neighbouring checkpoints are exactly
that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from nextrapolate_numerics.gram_svd import Core, self_product


@dataclass(frozen=True)
class Triple:
    """Leading singular triples sigma u v^T (NExt, arXiv 2604.11446, Eq. 7), one or a batch of them.

    Attributes:
        sigma: (...,), never negative.
        u: (..., m), of norm 1, or 0 where sigma is 0: a delta of nothing has no direction.
        v: (..., n), likewise.
    """

    sigma: Tensor
    u: Tensor
    v: Tensor

    def __getitem__(self, index: int | slice | list[int] | tuple[slice, int]) -> "Triple":
        return Triple(self.sigma[index], self.u[index], self.v[index])

    @classmethod
    def joined(cls, batches: Sequence["Triple"]) -> "Triple":
        """One batch of several."""
        return cls(*(torch.cat([getattr(batch, of.name) for batch in batches]) for of in fields(cls)))

    def aligned_to(self, other: "Triple") -> "Triple":
        """The same matrices under the signs that make u.u' + v.v' >= 0; `other` broadcasts."""
        agreement = (self.u * other.u).sum(-1, keepdim=True) + (self.v * other.v).sum(-1, keepdim=True)
        sign = torch.where(agreement < 0, -1.0, 1.0).to(self.u.dtype)
        return Triple(self.sigma, self.u * sign, self.v * sign)


@dataclass(frozen=True)
class LowRank:
    """X = B @ A, shapes (m, r) and (r, n).

    Raises:
        ValueError: B and A do not make a product.
    """

    B: Tensor
    A: Tensor

    def __post_init__(self) -> None:
        if self.B.ndim != 2 or self.A.ndim != 2 or self.B.shape[1] != self.A.shape[0]:
            raise ValueError(f"B {tuple(self.B.shape)} and A {tuple(self.A.shape)} do not make a product")

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n), the shape of the matrix that is never built."""
        return self.B.shape[0], self.A.shape[1]

    @property
    def rank(self) -> int:
        """Number of columns of B: a bound on the rank of X."""
        return self.B.shape[1]

    def __add__(self, other: "LowRank") -> "LowRank":
        return LowRank(torch.cat([self.B, other.B], dim=1), torch.cat([self.A, other.A], dim=0))

    def scaled(self, factor: float) -> "LowRank":
        """The product with a number, held in B."""
        return LowRank(self.B * factor, self.A)

    def double(self) -> "LowRank":
        """The same matrix with float64 factors."""
        return LowRank(self.B.double(), self.A.double())

    def to(self, device: torch.device) -> "LowRank":
        """The same factors on another device."""
        return LowRank(self.B.to(device), self.A.to(device))

    def inner(self, other: "LowRank") -> float:
        """<X, Y> = tr((B_x^T B_y)(A_y A_x^T)), in float64."""
        left = self.B.double().mT @ other.B.double()
        right = self.A.double() @ other.A.double().mT
        return float((left * right).sum())

    def norm(self) -> float:
        """Frobenius norm; of terms that cancel, what rounding leaves of them."""
        gram_b, gram_a = self._grams
        return math.sqrt(max(float((gram_b * gram_a).sum()), 0.0))

    def singular_values(self) -> Tensor:
        """(min(m, n, r),) float64, descending; below 1e-8 of the first they are rounding."""
        return Core.spectrum(*self._grams)[: min(*self.shape, self.rank)]

    def leading(self, count: int) -> "Leading":
        """The `count` leading singular triples, or as many as there are."""
        gram_b, gram_a = self._grams
        core = Core.leading(gram_b.unsqueeze(0), gram_a.unsqueeze(0), min(count, *self.shape, self.rank))
        return Leading(self, Core(core.values[0], core.left[0], core.right[0]))

    def truncated(self, rank: int) -> tuple["LowRank", float]:
        """The nearest matrix of rank `rank` at most, and the share of |X|^2 that it discards.

        Its factors are float64 and its A has orthonormal rows, min(rank, m, n, r) of them. Rows beyond the
        rank of X meet zero columns of B.
        """
        return self.leading(rank).truncated(rank)

    @cached_property
    def _compact(self) -> "LowRank":
        """The same matrix in float64, of rank min(m, n) at most: sums of many points are stacked higher."""
        exact = self.double()
        m, n = self.shape
        if self.rank <= min(m, n):
            return exact
        if n <= m:
            Q, R = torch.linalg.qr(exact.A.mT)
            return LowRank(exact.B @ R.mT, Q.mT)
        Q, R = torch.linalg.qr(exact.B)
        return LowRank(Q, R @ exact.A)

    @cached_property
    def _grams(self) -> tuple[Tensor, Tensor]:
        """B^T B and A A^T of the compact factors."""
        exact = self._compact
        return self_product(exact.B.mT), self_product(exact.A)


@dataclass(frozen=True)
class Leading:
    """The leading singular triples of a matrix.

    Attributes:
        matrix: X.
        core: (k) triples, in the coordinates of its compact factors.
    """

    matrix: LowRank
    core: Core

    @property
    def values(self) -> Tensor:
        """(k,) float64 singular values, descending; below 1e-8 of the first they are rounding."""
        return self.core.values.sqrt()

    def truncated(self, rank: int) -> tuple[LowRank, float]:
        """As LowRank.truncated, to k at most."""
        exact, core = self.matrix._compact, self.core.first(rank)
        basis = torch.linalg.qr(exact.A.mT @ core.right).Q.mT
        energy = self.matrix.norm() ** 2
        discarded = max(0.0, 1 - float(core.values.sum()) / energy) if energy > 0 else 0.0
        return LowRank(exact.B @ (exact.A @ basis.mT), basis), discarded


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., d) at norm 1; a zero vector stays zero."""
    norms = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(norms > 0, norms, 1.0)
