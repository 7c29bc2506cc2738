"""The refit: nearest matrix, the run's own gauge."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nextrapolate_numerics import LowRank
from nextrapolate_numerics.extension.refit import Refit, padded, refit_grown, refit_same_rank

sizes = st.integers(1, 12)
seeds = st.integers(0, 2**31)


def random_low_rank(m: int, n: int, r: int, seed: int) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(m, r, generator=generator), torch.randn(r, n, generator=generator))


def nothing(own: LowRank) -> LowRank:
    return LowRank(own.B[:, :0].double(), own.A[:0].double())


def refitted(update: LowRank, own: LowRank) -> Refit:
    return refit_same_rank(own.double() + update, own)


def dense(x: LowRank) -> Tensor:
    return x.B.double() @ x.A.double()


@settings(deadline=None, max_examples=60)
@given(m=sizes, n=sizes, r=sizes, rank=sizes, size=st.sampled_from([1e-3, 1.0]), seed=seeds)
def test_same_rank_is_the_nearest_and_says_what_it_discards(
    m: int, n: int, r: int, rank: int, size: float, seed: int
) -> None:
    own = random_low_rank(m, n, r, seed)
    update = random_low_rank(m, n, rank, seed + 1).double().scaled(size)
    wanted = own.double() + update
    refit = refitted(update, own)
    energy = torch.linalg.svdvals(dense(wanted)) ** 2
    discarded = float(energy[r:].sum() / energy.sum())
    assert refit.factors.rank == r
    assert refit.discarded == pytest.approx(discarded, abs=1e-9)
    actual = float((dense(wanted) - dense(refit.factors)).norm() ** 2 / energy.sum())
    assert actual == pytest.approx(discarded, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(m=sizes, n=sizes, r=sizes, padding=sizes, copied=st.booleans(), added=st.integers(0, 2), seed=seeds)
def test_rows_that_depend_on_one_another_need_no_care(
    m: int, n: int, r: int, padding: int, copied: bool, added: int, seed: int
) -> None:
    """Of zeros, as in an adapter that was grown; or the same ones twice."""
    own = random_low_rank(m, n, r, seed)
    own = LowRank(torch.cat([own.B] * 2, 1), torch.cat([own.A] * 2)) if copied else padded(own, r + padding)
    update = random_low_rank(m, n, added, seed + 1).double()
    refit = refitted(update, own)
    wanted = dense(own) + dense(update)
    energy = torch.linalg.svdvals(wanted) ** 2
    actual = (wanted - dense(refit.factors)).norm() ** 2 / energy.sum()
    assert float(actual) == pytest.approx(float(energy[own.rank :].sum() / energy.sum()), abs=1e-9)
    assert refit.discarded == pytest.approx(float(actual), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(m=sizes, n=sizes, r=sizes, seed=seeds)
def test_without_an_update_the_runs_own_factors_come_back(m: int, n: int, r: int, seed: int) -> None:
    own = random_low_rank(m, n, r, seed)
    refit = refitted(nothing(own), own)
    torch.testing.assert_close(dense(refit.factors), dense(own), rtol=1e-6, atol=1e-6)
    if torch.linalg.cond(own.A.double()) < 1e3:  # beyond, its gauge is bounded
        torch.testing.assert_close(refit.factors.A, own.A.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 2])
def test_directions_not_yet_used_stay_the_runs_own(rank: int) -> None:
    """A B of less than full rank, or 0: the free rows of A are kept, so that they can go on training."""
    own = random_low_rank(10, 8, 4, seed=0)
    B = own.B.clone()
    B[:, rank:] = 0
    own = LowRank(B, own.A)
    refit = refitted(nothing(own), own)
    torch.testing.assert_close(refit.factors.A, own.A.double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(refit.factors.B, B.double(), rtol=1e-6, atol=1e-6)


def test_gauge_is_the_projection_of_the_runs_a() -> None:
    own = random_low_rank(20, 16, 4, seed=1)
    update = random_low_rank(20, 16, 3, seed=2).double().scaled(0.3)
    refit = refitted(update, own)
    rows = torch.linalg.svd(dense(own) + dense(update)).Vh[:4]
    A = own.A.double()
    torch.testing.assert_close(refit.factors.A, A @ rows.mT @ rows)
    assert refit.gauge_condition == pytest.approx(float(torch.linalg.cond(A @ rows.mT)))
    assert refit.in_gauge


@settings(deadline=None, max_examples=60)
@given(reach=st.sampled_from([0.0, 1e-9, 1e-5, 1e-3, 1e-2, 0.1]), far=st.floats(0.1, 1e5), seed=seeds)
def test_rows_that_the_runs_a_hardly_reaches_survive_bfloat16(reach: float, far: float, seed: int) -> None:
    """An update on a row all but orthogonal to the run's own A: the bare gauge loses up to all of it."""
    own = random_low_rank(24, 20, 4, seed)
    own = LowRank(own.B, torch.cat([own.A[:, :-1], reach * own.A[:, -1:]], dim=1))
    column = random_low_rank(24, 1, 1, seed + 1).B
    update = LowRank(far * column, torch.eye(20)[-1:]).double()
    refit = refitted(update, own)
    wanted = dense(own) + dense(update)
    U, S, Vh = torch.linalg.svd(wanted)
    nearest = U[:, :4] * S[:4] @ Vh[:4]
    torch.testing.assert_close(dense(refit.factors), nearest, rtol=0, atol=1e-9 * float(S[0]))
    rounded = LowRank(refit.factors.B.bfloat16(), refit.factors.A.bfloat16())
    assert float((dense(rounded) - nearest).norm() / S[0]) < 30 * 2**-8  # each factor's entries to 2^-9
    projected = own.A.double() @ Vh[:4].mT @ Vh[:4]
    left = torch.linalg.matrix_norm(refit.factors.A - projected, ord=2)
    assert float(left) <= float(torch.linalg.matrix_norm(projected, ord=2)) / 30 + 1e-9
    assert refit.in_gauge


def test_the_runs_own_ill_conditioned_factors_come_back_as_they_are() -> None:
    own = random_low_rank(12, 10, 3, seed=4)
    own = LowRank(own.B, own.A * torch.tensor([[1.0], [1e-1], [4e-3]]))
    assert float(torch.linalg.cond(own.A.double())) > 100
    refit = refitted(nothing(own), own)
    torch.testing.assert_close(refit.factors.A, own.A.double(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(refit.factors.B, own.B.double(), rtol=1e-4, atol=1e-4)


def test_so_do_ill_conditioned_ones_of_a_rank_above_the_width() -> None:
    """A (8, 6) of rank 6, and a B that lies where A does."""
    generator = torch.Generator().manual_seed(5)
    turned = torch.linalg.qr(torch.randn(8, 6, generator=generator, dtype=torch.float64)).Q
    A = turned * torch.logspace(0, -2, 6, dtype=torch.float64)
    B = torch.randn(24, 6, generator=generator, dtype=torch.float64) @ turned.mT
    refit = refitted(nothing(LowRank(B, A)), LowRank(B, A))
    torch.testing.assert_close(refit.factors.A, A, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(refit.factors.B, B, rtol=1e-4, atol=1e-4)


def test_without_a_gauge_to_keep_factors_are_balanced() -> None:
    """The run's own A is 0: any gauge is as near to it as another."""
    own = LowRank(torch.ones(6, 2), torch.zeros(2, 6))
    refit = refitted(random_low_rank(6, 6, 2, seed=5).double(), own)
    assert not refit.in_gauge
    torch.testing.assert_close(refit.factors.B.norm(dim=0), refit.factors.A.norm(dim=1))


@settings(deadline=None, max_examples=40)
@given(m=sizes, n=sizes, r=sizes, rank=sizes, seed=seeds)
def test_grown_is_exact_and_leaves_the_runs_factors(m: int, n: int, r: int, rank: int, seed: int) -> None:
    own = random_low_rank(m, n, r, seed)
    update = random_low_rank(m, n, rank, seed + 1).double()
    refit = refit_grown(update, own)
    assert refit.factors.rank == r + min(m, n, rank)
    assert torch.equal(refit.factors.A[:r], own.A.double())
    assert torch.equal(refit.factors.B[:, :r], own.B.double())
    torch.testing.assert_close(dense(refit.factors), dense(own) + dense(update), rtol=1e-6, atol=1e-6)
    assert refit.discarded < 1e-12


def test_padding_keeps_the_matrix() -> None:
    x = random_low_rank(5, 4, 2, seed=3)
    wider = padded(x, 6)
    assert wider.rank == 6
    torch.testing.assert_close(dense(wider), dense(x))
