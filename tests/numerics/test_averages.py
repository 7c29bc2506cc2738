"""The averages against their formulas on the dense drift, and past the gate that asks for a forecast."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fixtures.adapters import write_run
from fixtures.combinations import dense_drift, fitted
from fixtures.dense import checkpoints
from hypothesis import given, settings
from hypothesis import strategies as st

from nextrapolate_numerics import (
    GateThresholds,
    Method,
    Soup,
    TooFewCheckpointsError,
    Trajectory,
    Wsm,
    backtest,
    extend,
    extract,
)

STEPS = st.sampled_from([[10, 20, 30, 40, 50, 60], [5, 10, 30, 40, 70, 80, 90], [0, 10, 20, 30, 50]])
WINDOWS = st.integers(1, 120)


@settings(deadline=None, max_examples=20)
@given(steps=STEPS, window=WINDOWS, jumped=st.booleans())
def test_soup_is_the_mean(
    steps: list[int], window: int, jumped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    run = write_run(folder / "run", steps)
    jumps = write_run(folder / "jumps", [steps[2]], seed=5) if jumped else None
    drift = dense_drift(run, jumps)
    start = steps[-1] - window
    begin = min(steps[:-1], key=lambda step: (abs(step - start), -step))
    mean = np.mean([drift[step] for step in steps if step >= begin], axis=0)
    _, actual = fitted(Soup(window_steps=window), run, 30, jumps)
    np.testing.assert_allclose(actual, mean - drift[steps[-1]], rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(steps=STEPS, window=WINDOWS, jumped=st.booleans())
def test_wsm_is_training_on_at_a_rate_that_falls_to_zero(
    steps: list[int], window: int, jumped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Step by step: the drift of each single step, taken as straight, counts by the rate at its middle."""
    folder = tmp_path_factory.mktemp("runs")
    run = write_run(folder / "run", steps)
    jumps = write_run(folder / "jumps", [steps[2]], seed=5) if jumped else None
    drift = dense_drift(run, jumps)
    known, last = sorted(drift), steps[-1]
    begin = min(known[:-1], key=lambda step: (abs(step - (last - window)), -step))
    decayed = drift[begin]
    for start, end in pairwise(step for step in known if step >= begin):
        for step in range(start, end):
            rate = (last - (step + 0.5)) / (last - begin)
            decayed = decayed + rate * (drift[end] - drift[start]) / (end - start)
    _, actual = fitted(Wsm(window_steps=window), run, 30, jumps)
    np.testing.assert_allclose(actual, decayed - drift[last], rtol=1e-9, atol=1e-12)


def test_one_checkpoint_makes_no_soup(tmp_path: Path) -> None:
    extraction = extract(Trajectory.open(checkpoints(write_run(tmp_path / "run", [10, 20]))), Soup(), 10)
    with pytest.raises(TooFewCheckpointsError, match="soup needs at least 2 checkpoints"):
        Soup().fit(extraction.until(1), 10)


@pytest.mark.parametrize("method", [Soup(), Wsm()])
def test_averages_lead_back_and_are_not_gated_for_it(
    method: Method, run_folder: Path, tmp_path: Path
) -> None:
    extraction = extract(Trajectory.open(checkpoints(run_folder)), method, 30)
    scores, update = backtest(method, extraction, 30), method.fit(extraction, 30)
    assert scores.total.cosine < 0
    extension = extend(extraction, update, alpha=1.0, gate=GateThresholds(), backtest=scores, folder=tmp_path)
    for module in extension.modules:
        assert module.gated is None
        assert (module.update_norm > 0) == module.moved
