"""Inner products of factors at several points, in whichever way a CPU makes them."""

from collections import deque

import pytest
import torch
from fixtures.stored import stored
from torch import Tensor

from nextrapolate_numerics.extraction import products, side
from nextrapolate_numerics.extraction.gram import Pairs
from nextrapolate_numerics.extraction.products import multiply
from nextrapolate_numerics.extraction.side import Side

LONG = pytest.mark.parametrize("long", [0, 1], ids=["B", "A"])
POINTS, WIDTH = 7, 500
ALL_BUT_ONE = [
    (one, other) for one in range(POINTS) for other in range(one + 1) if (one, other) != (POINTS - 1, 0)
]


def side_of(factors: list[Tensor], long: int) -> Side:
    """From p factors (d, r), which A are transposed."""
    return Side(stored([factor.T if long else factor for factor in factors]), long)


def drawn(rank: int, points: int = POINTS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(WIDTH, rank, generator=generator) for _ in range(points)]


def multiplied(some: Side, pairs: Pairs) -> tuple[Tensor, Tensor]:
    found = torch.zeros(len(pairs.kept), some.rank, some.rank, dtype=torch.float64)
    total = torch.zeros(len(some), some.rank, dtype=torch.float64)
    multiply(some, pairs, found, total)
    return found, total


@LONG
@pytest.mark.parametrize("rank", [1, 5, 16, 64])
@pytest.mark.parametrize("wanted", [None, ALL_BUT_ONE], ids=["all", "some"])
@pytest.mark.parametrize("read", [0, 40, 300, 600], ids=["one", "less than a tile", "two tiles", "all"])
def test_products_and_sums_are_those_of_the_factors(
    long: int, rank: int, wanted: list[tuple[int, int]] | None, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side, "_TILE_BYTES", 8 * POINTS * rank * 150)  # the last of four tiles is shorter
    monkeypatch.setattr(side, "_READ_BYTES", 4 * POINTS * rank * read)
    monkeypatch.setattr(side, "_rooms", deque())
    factors = drawn(rank)
    pairs = Pairs.of(POINTS, wanted)
    assert pairs.every == (wanted is None)
    found, total = multiplied(side_of(factors, long), pairs)
    for place, (one, other) in zip(found, pairs.kept.tolist(), strict=True):
        torch.testing.assert_close(place, factors[one].double().T @ factors[other].double())
    torch.testing.assert_close(total, torch.stack(factors).double().sum(dim=1))


@LONG
def test_equal_factors_have_equal_products(long: int) -> None:
    factors = drawn(16)
    for rests in (2, 3, 6):  # at rest, and back after a jump that was discarded
        factors[rests] = factors[1].clone()
    factors[5] = factors[5].clone().index_fill_(0, torch.tensor([0]), 0.0)
    factors[4] = factors[5].clone()
    factors[4][-1] += 1  # begins as the next one does
    pairs = Pairs.of(POINTS)
    found, total = multiplied(side_of(factors, long), pairs)
    for other in range(POINTS):
        of_first = found[pairs.where[1, other]]
        for rests in (2, 3, 6):
            assert found[pairs.where[rests, other]].equal(of_first)
            assert found[pairs.where[other, rests]].equal(of_first.T)
    assert total[2].equal(total[1])
    assert not found[pairs.where[4, 4]].equal(found[pairs.where[5, 5]])


@LONG
@pytest.mark.parametrize("block", [1, 20, 48, 500])
def test_mirrors_are_mirrors_to_the_last_bit(long: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_BLOCK", block)
    pairs = Pairs.of(POINTS)
    found, _ = multiplied(side_of(drawn(14), long), pairs)
    assert found[pairs.where].equal(found[pairs.where.T].mT)


@LONG
def test_a_factor_that_rests_all_the_way_is_multiplied_once(long: int) -> None:
    factor = drawn(6, points=1)[0]
    one, which = side_of([factor.clone() for _ in range(POINTS)], long).distinct()
    assert len(one) == 1
    assert not which.any()


@LONG
def test_numbers_that_are_none_stay_with_their_point(long: int) -> None:
    factors = drawn(6)
    factors[3][0, 0] = torch.nan
    pairs = Pairs.of(POINTS)
    found, _ = multiplied(side_of(factors, long), pairs)
    of_own = found[pairs.where.diagonal()].sum(dim=(1, 2))
    assert of_own.isfinite().tolist() == [point != 3 for point in range(POINTS)]
