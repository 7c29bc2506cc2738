"""The carrier of every delta: a matrix kept as the product of two thin factors, never as itself.

For X = B A with B (m, r) and A (r, n), everything here costs O((m + n) r^2) and builds an (m, n) matrix
nowhere. Factors may be float32 or float64. Inner products and small cores are float64: a float32 Gram matrix
of two nearly dependent blocks loses half its digits, and the factors of neighbouring checkpoints are exactly
that.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


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

    def __sub__(self, other: "LowRank") -> "LowRank":
        return self + other.scaled(-1.0)

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
        """Frobenius norm."""
        return math.sqrt(max(self.inner(self), 0.0))

    def singular_values(self) -> Tensor:
        """(min(m, n, r),) float64, descending; below 1e-8 of the first they are rounding."""
        return self._core.values[: min(*self.shape, self.rank)].sqrt()

    def leading(self) -> Triple:
        """The leading triple: sigma (), u (m,), v (n,), all float64."""
        return leading_triples(lambda _: self, 1, 1)[0][0]

    def truncated(self, rank: int) -> tuple["LowRank", float]:
        """The nearest matrix of rank `rank` at most, and the share of |X|^2 that it discards.

        Its factors are float64 and its A has orthonormal rows, min(rank, m, n, r) of them. Rows beyond the
        rank of X meet zero columns of B.
        """
        rank = min(rank, *self.shape, self.rank)
        exact = self._compact
        basis = torch.linalg.qr(exact.A.mT @ self._core.right[:, :rank]).Q.mT
        energy = self._core.values
        discarded = float(energy[rank:].sum() / energy.sum()) if energy[0] > 0 else 0.0
        return LowRank(exact.B @ (exact.A @ basis.mT), basis), discarded

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
    def _core(self) -> "_Core":
        exact = self._compact
        return _Core.of(exact.B.mT @ exact.B, exact.A @ exact.A.mT)


@dataclass(frozen=True)
class _Core:
    """The singular value decomposition X = U S V^T, told in the coordinates of the factors.

    Attributes:
        values: (..., r) squared singular values, descending.
        left: (..., r, r), B @ left = U S.
        right: (..., r, r), A^T @ right = V S^2.
    """

    values: Tensor
    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, gram_b: Tensor, gram_a: Tensor) -> "_Core":
        """From B^T B and A A^T, both (..., r, r) float64.

        With A = root Q^T and Q orthonormal, X Q = B root. Nothing is divided by a small eigenvalue on the
        way, so that factors whose rows are dependent need no care.
        """
        spread, axes = torch.linalg.eigh(gram_a)
        root = axes * spread.clamp(min=0).sqrt().unsqueeze(-2)
        values, vectors = torch.linalg.eigh(root.mT @ gram_b @ root)
        left = root @ vectors.flip(-1)
        return cls(values.flip(-1).clamp(min=0), left, gram_b @ left)


def leading_triples(delta: Callable[[int], LowRank], count: int, rank: int) -> Triple:
    """The `rank` leading triples each of delta(0) .. delta(count - 1), as a float64 batch (count, rank).

    The deltas share one shape. They are asked for one at a time, and twice, so that only one of them is ever
    in memory; the small cores of equal rank are decomposed together. The entry of u that is largest in
    magnitude is positive, which makes the sign of a triple a function of its matrix. Where a delta has fewer
    triples, the others are 0.
    """
    weights: dict[int, tuple[Tensor, Tensor]] = {}
    for batch, core in _cores(delta, count):
        weights |= zip(batch, zip(core.left[..., :rank], core.right[..., :rank], strict=True), strict=True)
    us, vs = [], []
    for index in range(count):
        exact = delta(index).double()
        left, right = weights[index]
        missing = (0, 0, 0, rank - left.shape[-1])
        us.append(torch.nn.functional.pad((exact.B @ left).mT, missing))
        vs.append(torch.nn.functional.pad((exact.A.mT @ right).mT, missing))
    u, v = torch.stack(us), torch.stack(vs)
    sign = u.gather(-1, u.abs().argmax(-1, keepdim=True)).sign()
    return Triple(u.norm(dim=-1), sign * unit(u), sign * unit(v))


def energy_ratios(delta: Callable[[int], LowRank], count: int) -> Tensor:
    """sigma_1 / sum sigma of delta(0) .. delta(count - 1), (count,) float64; 0 where a delta is 0.

    As NExt defines it (arXiv 2604.11446, Fig. 2), not squared.
    """
    ratios = torch.zeros(count, dtype=torch.float64)
    for batch, core in _cores(delta, count):
        values = core.values.sqrt().cpu()
        total = values.sum(dim=-1)
        ratios[batch] = torch.where(total > 0, values[:, 0] / total, 0.0)
    return ratios


def _cores(delta: Callable[[int], LowRank], count: int) -> Iterator[tuple[list[int], _Core]]:
    """The cores of delta(0) .. delta(count - 1), those of equal rank as one batch, and which they are."""
    grams = []
    for index in range(count):
        exact = delta(index).double()
        grams.append((exact.B.mT @ exact.B, exact.A @ exact.A.mT))
    for rank in sorted({len(gram_b) for gram_b, _ in grams}):
        batch = [index for index in range(count) if len(grams[index][0]) == rank]
        yield batch, _Core.of(*(torch.stack(side) for side in zip(*(grams[i] for i in batch), strict=True)))


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., d) at norm 1; a zero vector stays zero."""
    norms = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(norms > 0, norms, 1.0)
