"""Kriging in time, against positions of the process and the textbook's conditional mean."""

import numpy as np
import pytest
import torch
from fixtures.kriging import increment_covariance
from hypothesis import given, settings
from hypothesis import strategies as st

from nextrapolate_numerics.methods.auto.kriging import Memory, predictors

ascending = st.lists(st.integers(1, 60), min_size=3, max_size=8).map(lambda gaps: np.cumsum(gaps).tolist())
memories = st.tuples(st.floats(0, 0.95), st.floats(0, 5), st.floats(0.1, 10))


def covariance(steps: list[int], memory: tuple[float, float, float]) -> torch.Tensor:
    return Memory(*memory).covariance(torch.tensor(steps, dtype=torch.float64))


@settings(deadline=None)
@given(steps=ascending, memory=memories, from_base=st.booleans())
def test_covariance_of_increments_is_the_second_difference_of_that_of_positions(
    steps: list[int], memory: tuple[float, float, float], from_base: bool
) -> None:
    steps = [0, *steps] if from_base else steps
    np.testing.assert_allclose(covariance(steps, memory), increment_covariance(steps, memory), rtol=1e-10)


@settings(deadline=None)
@given(
    begin=st.integers(0, 15).map(lambda power: 10**power) | st.integers(1, 2**53 - 1000),
    steps=ascending,
    memory=memories,
)
def test_covariance_holds_however_late_in_a_run(
    begin: int, steps: list[int], memory: tuple[float, float, float]
) -> None:
    """A checkpoint every 10 steps changes squares of 2^53 by a share that float64 does not know."""
    late = [begin + step for step in steps]
    expected = increment_covariance(late, memory)
    np.testing.assert_allclose(covariance(late, memory), expected, rtol=1e-9)
    known = torch.from_numpy(expected).unsqueeze(0)
    ends = range(len(known[0]) - 1, len(known[0]) + 1)
    found = predictors(covariance(late, memory).unsqueeze(0), len(steps) - 2, ends)
    torch.testing.assert_close(found, predictors(known, len(steps) - 2, ends), rtol=1e-6, atol=1e-9)


@settings(deadline=None)
@given(steps=ascending, memory=memories)
def test_predictions_are_the_conditional_mean(steps: list[int], memory: tuple[float, float, float]) -> None:
    """E[y | x] = -P_yy^-1 P_yx x with P the precision: another road than solving with the covariance of x."""
    K = increment_covariance(steps, memory)
    known, n = len(K) // 2, len(K)
    precision = np.linalg.inv(K)
    each = -np.linalg.solve(precision[known:, known:], precision[known:, :known])
    ends = [n, known + 1]
    found = predictors(covariance(steps, memory).unsqueeze(0), known, ends)
    assert found.shape == (2, 1, known)
    np.testing.assert_allclose(found[:, 0], [each.sum(axis=0), each[0]], rtol=1e-4, atol=1e-7)


@settings(deadline=None)
@given(steps=ascending, forgetting=st.floats(0, 0.95), noise=st.floats(0.1, 10), scale=st.integers(2, 50))
def test_no_time_scale_has_to_be_known(steps: list[int], forgetting: float, noise: float, scale: int) -> None:
    """A run that takes `scale` times as many steps for everything is predicted alike."""
    K = covariance(steps, (forgetting, 0.0, noise)).unsqueeze(0)
    slower = covariance([scale * step for step in steps], (forgetting, 0.0, scale * noise)).unsqueeze(0)
    ends = range(3, len(steps))
    torch.testing.assert_close(predictors(slower, 2, ends), predictors(K, 2, ends))


def test_a_heading_never_forgotten_and_hardly_noisy_is_followed() -> None:
    (ahead,) = predictors(covariance([10, 20, 40, 100], (0.0, 0.0, 1e-9)).unsqueeze(0), 2, [3])
    increments = torch.tensor([10.0, 20.0], dtype=torch.float64)  # one a step
    assert float(ahead[0] @ increments) == pytest.approx(60, rel=1e-6)


def test_what_is_not_remembered_predicts_nothing() -> None:
    weights = predictors(covariance([10, 20, 30, 40], (0.5, 0.0, 1e9)).unsqueeze(0), 2, [3])
    assert float(weights.abs().max()) < 1e-6
