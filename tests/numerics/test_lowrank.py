"""LowRank against dense float64 linear algebra."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nextrapolate_numerics import LowRank, Triple

sizes = st.integers(1, 12)
seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float32, torch.float64])


def random_low_rank(m: int, n: int, r: int, seed: int, dtype: torch.dtype = torch.float64) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    B = torch.randn(m, r, generator=generator, dtype=torch.float64)
    A = torch.randn(r, n, generator=generator, dtype=torch.float64)
    return LowRank(B.to(dtype), A.to(dtype))


def dense(x: LowRank) -> Tensor:
    return x.B.double() @ x.A.double()


@settings(deadline=None, max_examples=60)
@given(m=sizes, n=sizes, r=sizes, other_rank=sizes, factor=st.floats(-3, 3), seed=seeds, dtype=dtypes)
def test_algebra(
    m: int, n: int, r: int, other_rank: int, factor: float, seed: int, dtype: torch.dtype
) -> None:
    x = random_low_rank(m, n, r, seed, dtype)
    y = random_low_rank(m, n, other_rank, seed + 1, dtype)
    torch.testing.assert_close(dense(x + y), dense(x) + dense(y))
    torch.testing.assert_close(dense(x.scaled(factor)), factor * dense(x), rtol=1e-5, atol=1e-5)
    assert x.inner(y) == pytest.approx(float((dense(x) * dense(y)).sum()), rel=1e-9, abs=1e-9)
    assert x.norm() == pytest.approx(float(dense(x).norm()), rel=1e-9)
    assert x.shape == (m, n)
    assert (x + y).rank == r + other_rank


@settings(deadline=None, max_examples=60)
@given(m=sizes, n=sizes, r=sizes, seed=seeds, dtype=dtypes)
def test_singular_values(m: int, n: int, r: int, seed: int, dtype: torch.dtype) -> None:
    x = random_low_rank(m, n, r, seed, dtype)
    expected = torch.linalg.svdvals(dense(x))[: min(m, n, r)]
    torch.testing.assert_close(x.singular_values(), expected, rtol=1e-7, atol=1e-6 * float(expected[0]))


@settings(deadline=None, max_examples=60)
@given(m=sizes, n=sizes, r=sizes, rank=st.integers(0, 14), seed=seeds)
def test_truncation_is_the_nearest(m: int, n: int, r: int, rank: int, seed: int) -> None:
    x = random_low_rank(m, n, r, seed)
    kept, discarded = x.truncated(rank)
    energy = torch.linalg.svdvals(dense(x)) ** 2
    assert kept.rank == min(rank, m, n, r)
    assert discarded == pytest.approx(float(energy[kept.rank :].sum() / energy.sum()), abs=1e-9)
    actual = float((dense(x) - dense(kept)).norm() ** 2 / energy.sum())
    assert actual == pytest.approx(discarded, abs=1e-9)
    torch.testing.assert_close(kept.A @ kept.A.mT, torch.eye(kept.rank, dtype=torch.float64))


def test_nothing_stays_nothing() -> None:
    nothing = LowRank(torch.zeros(5, 3), torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    assert nothing.norm() == 0
    kept, discarded = nothing.truncated(2)
    assert discarded == 0
    assert not dense(kept).any()


def test_dependent_factors_need_no_care() -> None:
    x = random_low_rank(9, 7, 3, seed=1)
    doubled = LowRank(torch.cat([x.B, x.B], dim=1), torch.cat([x.A, -0.5 * x.A], dim=0))
    torch.testing.assert_close(doubled.singular_values()[:3], 0.5 * x.singular_values(), rtol=1e-9, atol=0)
    kept, discarded = doubled.truncated(3)
    assert discarded < 1e-12
    torch.testing.assert_close(dense(kept), 0.5 * dense(x))


@pytest.mark.parametrize("short", [1e-4, 1e-8, 1e-20])
def test_dependent_rows_of_very_different_length_keep_their_digits(short: float) -> None:
    """As where orthonormal rows of an update come beside those of a run that has hardly begun."""
    own = random_low_rank(20, 16, 3, seed=2)
    rows = torch.linalg.qr(own.A.mT).Q.mT.repeat(2, 1)
    x = LowRank(own.B, short * own.A) + LowRank(short * random_low_rank(20, 1, 6, seed=3).B, rows)
    U, S, Vh = torch.linalg.svd(dense(x))
    kept, _ = x.truncated(2)
    torch.testing.assert_close(dense(kept) / short, U[:, :2] * S[:2] @ Vh[:2] / short, rtol=0, atol=1e-10)


def test_alignment_flips_u_and_v_together() -> None:
    triple = Triple(torch.tensor(2.0), torch.tensor([0.6, -0.8]), torch.tensor([0.0, 1.0, 0.0]))
    flipped = Triple(triple.sigma, -triple.u, -triple.v)
    aligned = flipped.aligned_to(triple)
    assert torch.equal(aligned.u, triple.u)
    assert torch.equal(aligned.v, triple.v)


def test_factors_that_make_no_product_are_refused() -> None:
    with pytest.raises(ValueError, match="do not make a product"):
        LowRank(torch.zeros(3, 2), torch.zeros(3, 4))


def test_norm_of_rounding_is_not_nan() -> None:
    x = random_low_rank(6, 5, 2, seed=4, dtype=torch.float32)
    assert math.isfinite((x + x.scaled(-1.0)).norm())
