"""What a gate leaves of an update, and what a backtest then says of it."""

from pathlib import Path

import pytest
import torch
from fixtures.adapters import MODULES
from fixtures.dense import checkpoints

from nextrapolate_numerics import (
    Backtest,
    Extraction,
    GateThresholds,
    Products,
    Trajectory,
    WeightExtrapolation,
    extract,
)

Q, DOWN, _ = MODULES
GENERATOR = torch.Generator().manual_seed(0)
P, T = torch.randn(2, 2, 9, generator=GENERATOR, dtype=torch.float64)
"""A predicted and a true update of two modules, entry by entry."""


def backtest_of(P: torch.Tensor) -> Backtest:
    pp, pt, tt = ((x * y).sum(dim=1) for x, y in ((P, P), (P, T), (T, T)))
    return Backtest(90, 120, (DOWN, Q), Products(pp[:, None], pt[:, None], tt), (), seconds=0.0)


@pytest.fixture
def extraction(run_folder: Path) -> Extraction:
    return extract(Trajectory.open(checkpoints(run_folder)), WeightExtrapolation(), 30)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 1.5])
def test_scores_of_what_is_applied_are_those_of_the_vector_without_gated_modules(alpha: float) -> None:
    applied = alpha * P * torch.tensor([[0.0], [1.0]])
    scores = backtest_of(P).applied(alpha, {DOWN})
    assert scores.cosine == pytest.approx(float((applied * T).sum() / applied.norm() / T.norm()))
    assert scores.relative_error == pytest.approx(float((applied - T).norm() / T.norm()))
    assert scores.size_ratio == pytest.approx(float(applied.norm() / T.norm()))


def test_what_a_gate_holds_back_counts_for_nothing(extraction: Extraction) -> None:
    scores = GateThresholds(1.0, -1.0).applied(extraction, backtest_of(T), 1.0)
    assert (scores.cosine, scores.relative_error, scores.size_ratio) == (0.0, 1.0, 0.0)


def test_a_gate_by_cosines_can_cost_and_cannot_make_noise_look_good(extraction: Extraction) -> None:
    good, mixed = backtest_of(T), backtest_of(T * torch.tensor([[1.0], [-1.0]]))
    assert GateThresholds(0.0, 1.1).applied(extraction, good, 1.0).relative_error == 1.0
    assert mixed.applied(1.0, GateThresholds().gated(extraction, mixed)).relative_error < 1.0
    assert GateThresholds().applied(extraction, mixed, 1.0) == mixed.total


def test_a_cosine_that_rounding_puts_past_minus_1_is_minus_1_and_not_below_a_gate_that_is_off() -> None:
    pp, pt, tt = torch.tensor([[2.0]]).double(), torch.tensor([[-6.0 - 1e-14]]).double(), torch.tensor([18.0])
    (scores,) = Products(pp, pt, tt.double()).scores
    assert scores.cosine == -1.0
