"""Singular value decompositions of low-rank matrices, from the Gram matrices of their factors.

X = B A is known by B^T B and A A^T, two small matrices: a decomposition of X, told in the coordinates of the
factors, costs nothing that grows with m or n. Batches of X go together.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.parallel import in_threads
from nextrapolate_numerics.transfer import fetched

ROUNDING = 1e-7
"""Of the first singular value: what inner products of float32 factors, in float64, hardly tell from 0."""

_OVERSAMPLING = 7  # iterated beyond those wanted, at least: the first one left out decides over convergence
_ABREAST = 8  # columns that make a cache line: matrices that begin at one are multiplied alike, bit for bit
_DENSE = 3  # below so many times the iterated columns, the whole spectrum costs no more than a part
_BATCHED_ON_GPU = 32  # wider matrices a GPU decomposes one after the other, more slowly than a CPU
_ROUNDS = 8
_POWERS = 2  # of X^T X between two small decompositions
_MISSED = 1e-12  # of the squared norm held; vectors have half as many digits
_DROWNED = 1e-5  # of the first: squared values below it are not to be had in one round
_BLOCK = 128  # rows that are multiplied at once
_DEPENDENT = 1e-13  # squared lengths below this share of the largest are rounding
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Core:
    """The decomposition X = U S V^T of each X of a batch, in the coordinates of its factors.

    Attributes:
        values: (..., k) squared singular values, descending; float64, as all else.
        left: (..., q, k), B @ left = U S.
        right: (..., q, k), A^T @ right = V S^2.
    """

    values: Tensor
    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, gram_b: Tensor, gram_a: Tensor) -> Self:
        """All of it, from B^T B and A A^T, both (..., q, q) float64.

        With A = root Q^T and Q orthonormal, X Q = B root. Nothing is divided by a small eigenvalue on the
        way, so that factors whose rows are dependent need no care.
        """
        root = _root(gram_a)
        values, vectors = torch.linalg.eigh(root.mT @ gram_b @ root)
        left = root @ vectors.flip(-1)
        return cls(values.flip(-1).clamp(min=0), left, gram_b @ left)

    @classmethod
    def leading(cls, gram_b: Tensor, gram_a: Tensor, count: int) -> Self:
        """The `count` leading triples, or as many as there are; from (b, q, q) Gram matrices.

        Subspace iteration on X^T X (Halko, Martinsson and Tropp, arXiv 0909.4061, Algorithm 4.4), all of the
        batch at once, each until its residuals are as small as rounding lets the energy be known: what one
        needs changes no other. Spectra too flat for that are decomposed whole.

        All begin with the same random columns, and two or three rounds do, as a rule. A neighbour's vectors
        would save one at the most, and they would have to be there first, where now one batch has them all.
        """
        width = _ABREAST * ceil((count + _OVERSAMPLING) / _ABREAST)
        dense = _DENSE * width if gram_b.device.type == "cpu" else _BATCHED_ON_GPU
        if not len(gram_b) or gram_b.shape[-1] <= max(dense, width):
            return cls.of(gram_b, gram_a).first(count)
        through = gram_a @ _start(gram_a, width)
        which = torch.arange(len(gram_b), device=gram_b.device)
        left, right, flat = gram_b, gram_a, which[:0]
        found: list[tuple[Tensor, Self]] = []
        for round_ in range(_ROUNDS):
            core, through, lost = cls._ritz(left, right, through)
            at_rest = core._missed(through, count) <= _MISSED * core.values[:, :count].sum(-1)
            at_rest &= ~lost
            if not round_:  # columns of small values came out as dependent on those of large ones, and short
                at_rest &= core.values[:, count - 1] > _DROWNED * core.values[:, 0]
            done = at_rest | lost
            if not done.any():
                continue
            found.append((which[at_rest], core.first(count)[at_rest]))
            flat = torch.cat([flat, which[lost]])
            which, left, right, through = (each[~done] for each in (which, left, right, through))
            if not len(which):
                break
        flat = torch.cat([flat, which])
        if len(flat):
            found.append((flat, cls.of(gram_b[flat], gram_a[flat]).first(count)))
        return cls._in_order(found)

    @classmethod
    def spectrum(cls, gram_b: Tensor, gram_a: Tensor) -> Tensor:
        """All singular values, (..., q) descending; below 1e-8 of the first they are rounding."""
        root = _root(gram_a)
        if _is_slow_on_gpu(gram_b):
            # The one driver that takes wide matrices as a batch refuses those that are hardly of full rank.
            with suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
                square: Tensor = torch.linalg.cholesky(gram_b).mT @ root
                return torch.linalg.svdvals(square, driver="gesvda")  # type: ignore[no-any-return]
        values: Tensor = _eigenvalues(root.mT @ gram_b @ root).flip(-1)
        return values.clamp(min=0).sqrt()

    @classmethod
    def _ritz(cls, gram_b: Tensor, gram_a: Tensor, through: Tensor) -> tuple[Self, Tensor, Tensor]:
        """Some powers of X^T X on the span of A^T block, where through = A A^T block, and what X does there.

        Returns:
            The core; gram_a @ core.right, from which to go on; and (b,) whose block was lost.
        """
        for _ in range(_POWERS):
            block = gram_b @ through
            block = block * inverse(block.abs().amax(dim=(-2, -1), keepdim=True))  # or powers underflow
            through = gram_a @ block
        left, lost = _orthonormal(block, through)
        block = gram_b @ left
        values, vectors = torch.linalg.eigh(left.mT @ block)
        turn = vectors.flip(-1)
        right = block @ turn
        return cls(values.flip(-1).clamp(min=0), left @ turn, right), gram_a @ right, lost

    def _missed(self, through: Tensor, count: int) -> Tensor:
        """Energy that the first `count` vectors may still be turned away from, (b,).

        It is |residual|^2 / theta for X^T X v = theta v + residual; `through` is gram_a @ right.
        """
        values = self.values[:, :count]
        lengths = (self.right * through)[..., :count].sum(-2)
        theta = values.clamp(min=_DEPENDENT * values[:, :1] + _TINY)
        return ((lengths - values**2).abs() / theta).sum(-1)

    def __getitem__(self, which: Tensor) -> Self:
        return type(self)(self.values[which], self.left[which], self.right[which])

    @classmethod
    def _in_order(cls, found: Sequence[tuple[Tensor, Self]]) -> Self:
        """One batch of several, each with the places of its own."""
        order = torch.cat([which for which, _ in found]).argsort()
        sides = zip(*((core.values, core.left, core.right) for _, core in found), strict=True)
        return cls(*(torch.cat(side)[order] for side in sides))

    def first(self, count: int) -> Self:
        """The first `count` of them."""
        return type(self)(self.values[..., :count], self.left[..., :count], self.right[..., :count])


def inverse(values: Tensor) -> Tensor:
    """One over each, and 0 where that is not to be had."""
    return torch.where(values > 0, values, torch.inf).reciprocal()


def _is_slow_on_gpu(matrices: Tensor) -> bool:
    """Whether they are on a GPU that would decompose one after the other."""
    return matrices.device.type != "cpu" and matrices.shape[-1] > _BATCHED_ON_GPU and matrices.ndim > 2


def _eigenvalues(matrices: Tensor) -> Tensor:
    """Of symmetric matrices (..., q, q), ascending; on the CPU where a GPU would take one after the other."""
    if not _is_slow_on_gpu(matrices):
        values: Tensor = torch.linalg.eigvalsh(matrices)
        return values
    threads = torch.get_num_threads()
    some = fetched(matrices).chunk(2 * threads)
    return torch.cat(list(in_threads(torch.linalg.eigvalsh, some, threads))).to(matrices.device)


def self_product(rows: Tensor) -> Tensor:
    """Rows @ rows.T of (q, d): one half is multiplied, the other mirrored."""
    product = rows.new_empty(len(rows), len(rows))
    for begin in range(0, len(rows), _BLOCK):
        own = slice(begin, begin + _BLOCK)
        product[begin:, own] = rows[begin:] @ rows[own].mT
        product[own, begin:] = product[begin:, own].mT.clone()
    return product


def _root(gram: Tensor) -> Tensor:
    """A square F with F F^T = gram (..., q, q): by Cholesky, or where one is singular, from its axes."""
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(gram)
    if (singular := info > 0).any():
        factor[singular] = _root_from_axes(gram[singular])
    return factor


def _root_from_axes(gram: Tensor) -> Tensor:
    """The same for singular ones. A row of squared length 0 or less is none: its products are rounding."""
    lengths = gram.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    # Rows of one length, or short ones would drown in the rounding of long ones.
    spread, axes = torch.linalg.eigh(_cosines(gram, lengths))
    root: Tensor = lengths.unsqueeze(-1) * axes * spread.clamp(min=0).sqrt().unsqueeze(-2)
    return root


def _cosines(gram: Tensor, lengths: Tensor) -> Tensor:
    """Inner products (..., q, q) of rows of given lengths (..., q), over these.

    None is more than 1: where rounding says so, of rows so short that they are nothing else, it would
    outweigh all others.
    """
    over = inverse(lengths)
    return (gram * over.unsqueeze(-1) * over.unsqueeze(-2)).clamp(-1, 1)


def _orthonormal(block: Tensor, through: Tensor) -> tuple[Tensor, Tensor]:
    """A V, where V is an orthonormal basis of what A^T block (b, q, k) spans: Cholesky's QR.

    `through` is A A^T block. A column that depends on those before it comes out shorter than 1, and counts
    for nothing.

    Returns:
        It, and (b,) where there is none to be had, since rounding is all that a column holds: 0 there.
    """
    products = block.mT @ through
    squares = products.diagonal(dim1=-2, dim2=-1)
    lengths = squares.clamp(min=0).sqrt()
    cosines = _cosines(products, lengths)
    cosines.diagonal(dim1=-2, dim2=-1).add_(_DEPENDENT)
    factor, info = torch.linalg.cholesky_ex(cosines)
    lost = (info > 0) | (squares < 0).any(dim=-1)
    nowhere = lost[:, None, None]
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    factor = torch.where(nowhere, eye, factor)
    scaled = torch.where(nowhere, 0.0, through * inverse(lengths).unsqueeze(-2))
    basis: Tensor = torch.linalg.solve_triangular(factor.mT, scaled, upper=True, left=False)
    return basis, lost


def _start(like: Tensor, width: int) -> Tensor:
    """The same columns for each of the batch, drawn on the CPU so that devices agree; (b, q, width)."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(like.shape[-1], width, generator=generator, dtype=like.dtype)
    return drawn.to(like.device).expand(len(like), -1, -1)
