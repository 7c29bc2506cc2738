"""The methods that combine checkpoints, against dense implementations of their formulas."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.adapters import write_run
from fixtures.combinations import Vector, dense_drift, fitted
from fixtures.dense import checkpoints, dense_deltas
from fixtures.methods import METHODS
from hypothesis import given, settings
from hypothesis import strategies as st

from nextrapolate_numerics import (
    Autoregression,
    Evidence,
    Method,
    TooFewCheckpointsError,
    Trajectory,
    WeightExtrapolation,
)
from nextrapolate_numerics.update import Combination


@pytest.mark.parametrize("points", [1, 4, 5, 9])
def test_a_combination_has_the_rank_of_its_points_or_of_a_full_matrix(tmp_path: Path, points: int) -> None:
    """More than four points of rank 4 are no thinner than matrices of 16 rows or columns."""
    series = checkpoints(write_run(tmp_path / "run", list(range(10, 110, 10))))
    trajectory, weights = Trajectory.open(series), torch.zeros(len(series), dtype=torch.float64)
    weights[-points:] = torch.linspace(-1.0, 2.5, points, dtype=torch.float64)
    update = Combination(20, (), dict.fromkeys(trajectory.module_names, weights))
    deltas = [dense_deltas(files) for files in series]
    for name in trajectory.module_names:
        found = update.delta(name, trajectory)
        expected = sum(float(weight) * each[name] for weight, each in zip(weights, deltas, strict=True))
        torch.testing.assert_close(found.B @ found.A, expected, rtol=1e-10, atol=1e-12)
        assert found.rank == update.rank_of(name, trajectory) == min(4 * points, 16)


def dense_autoregression(drift: dict[int, Vector], horizon: int, method: Autoregression) -> Vector:
    """Explicit rows of one least-squares problem, the penalty as further rows."""
    steps = sorted(drift)
    last = steps[-1]
    windows = [last - step for step in steps[:-1] if last - step <= method.max_window_steps]

    def speeds(at: int) -> Vector:
        columns = []
        for window in windows:
            earlier = [step for step in steps if step < at]
            begin = min(earlier, key=lambda step: (abs(step - (at - window)), -step))
            columns.append((drift[at] - drift[begin]) / (at - begin))
        return np.stack(columns, axis=1)

    rows, answers = [], []
    for origin in steps[1:-1]:
        for end in (step for step in steps if origin < step <= origin + horizon):
            ahead = end - origin
            weight = method.decay ** ((last - origin) / 10) * (ahead / horizon) ** 0.5
            rows.append(np.sqrt(weight) * ahead * speeds(origin))
            answers.append(np.sqrt(weight) * (drift[end] - drift[origin]))
    X, y = np.concatenate(rows), np.concatenate(answers)
    penalty = method.ridge * (X**2).sum() / len(windows)
    X = np.concatenate([X, np.sqrt(penalty) * np.eye(len(windows))])
    y = np.concatenate([y, np.zeros(len(windows))])
    coefficients = np.linalg.lstsq(X, y, rcond=None)[0]
    return np.asarray(horizon * speeds(last) @ coefficients)


@settings(deadline=None, max_examples=15)
@given(
    horizon=st.sampled_from([5, 30, 200]),
    window=st.integers(1, 200),
    seed=st.integers(0, 99),
    jumped=st.booleans(),
)
def test_weight_extrapolation_is_the_line(
    horizon: int, window: int, seed: int, jumped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    run = write_run(folder / "run", [10, 20, 30, 50, 60], seed=seed)
    jumps = write_run(folder / "jumps", [20, 50], seed=seed + 1) if jumped else None
    drift = dense_drift(run, jumps)
    begin = min((step for step in drift if step < 60), key=lambda step: (abs(step - (60 - window)), -step))
    expected = horizon / (60 - begin) * (drift[60] - drift[begin])
    update, actual = fitted(WeightExtrapolation(window_steps=window), run, horizon, jumps)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
    assert bool(update.warnings) == (60 - begin != window)


@pytest.mark.parametrize("steps", [[10, 20, 30, 40, 50, 60], [5, 10, 30, 40, 70, 80, 90], [10, 20]])
@pytest.mark.parametrize("jumped", [False, True])
@pytest.mark.parametrize(
    "method", [Autoregression(), Autoregression(ridge=1.0, decay=0.9, max_window_steps=40)]
)
def test_autoregression_is_the_dense_regression(
    steps: list[int], jumped: bool, method: Autoregression, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", steps)
    jumps = write_run(tmp_path / "jumps", [steps[len(steps) // 2 - 1]], seed=5) if jumped else None
    expected = dense_autoregression(dense_drift(run, jumps), 30, method)
    _, actual = fitted(method, run, 30, jumps)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-8)


def test_a_jump_to_where_the_run_is_changes_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 30, 40, 50, 60])
    shutil.copytree(run / "checkpoint-30", tmp_path / "jumps" / "checkpoint-30")
    plain, jumped = (fitted(Autoregression(), run, 30, jumps)[1] for jumps in (None, tmp_path / "jumps"))
    np.testing.assert_allclose(jumped, plain, rtol=1e-9, atol=1e-12)


def test_spacing_wider_than_the_horizon_still_learns(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [100, 200, 300])
    _, actual = fitted(Autoregression(), run, 10)
    assert 0 < np.linalg.norm(actual) < np.linalg.norm(dense_drift(run)[300])


@pytest.mark.parametrize("spacing", [10, 500, 1000])
def test_a_checkpoint_twice_teaches_nothing(spacing: int, tmp_path: Path) -> None:
    """What is left of the pair after it is rounding, and older pairs weigh less than that far apart."""
    run = write_run(tmp_path / "run", range(spacing, 9 * spacing, spacing))
    earlier, repeated = (run / f"checkpoint-{place * spacing}" for place in (6, 7))
    shutil.copytree(earlier, repeated, dirs_exist_ok=True)
    _, actual = fitted(Autoregression(), run, spacing)
    assert 0 < np.linalg.norm(actual) < np.linalg.norm(dense_drift(run)[8 * spacing])


def test_autoregression_says_how_many_checkpoints_it_needs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0, 10])
    with pytest.raises(TooFewCheckpointsError, match="at least 3 checkpoints"):
        fitted(Autoregression(), run, 10)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_what_inner_products_are_enough_for_is_a_combination(method: Method, run_folder: Path) -> None:
    """Such a method is quick, and beside others in every report; one of which this is untrue is not."""
    update, _ = fitted(method, run_folder, 30)
    assert isinstance(update, Combination) is (method.needs == Evidence(gram=True))


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_modules_that_never_moved_get_no_update(method: Method, run_folder: Path) -> None:
    update, _ = fitted(method, run_folder, 30)
    assert "model.layers.1.self_attn.q_proj" not in update.modules()
    with pytest.raises(KeyError):
        update.delta("model.layers.1.self_attn.q_proj", Trajectory.open(checkpoints(run_folder)))
