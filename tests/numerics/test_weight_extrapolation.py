"""Weight extrapolation's two steps: the caller's, or those that a dense backtest would choose."""

from pathlib import Path

import numpy as np
import pytest
from fixtures.adapters import write_run
from fixtures.combinations import Vector, dense_drift, fitted
from fixtures.dense import assert_same_scores, checkpoints, dense_deltas, flat
from hypothesis import given, settings
from hypothesis import strategies as st

from nextrapolate_numerics import (
    Backtest,
    LineStepError,
    Trajectory,
    WeightExtrapolation,
    backtest,
    compare,
    extract,
)

EVEN, UNEVEN, FROM_ZERO = [10, 20, 30, 40, 50, 60], [5, 10, 30, 40, 70, 80, 90], [0, 10, 20, 30, 50]


def dense_line(drift: dict[int, Vector], begin: int, end: int, target: int) -> Vector:
    """The formula, relative to the last step."""
    line = drift[begin] + (target - begin) / (end - begin) * (drift[end] - drift[begin])
    return np.asarray(line - drift[max(drift)])


def dense_positions(run: Path) -> dict[int, Vector]:
    """The checkpoints as they are, jumps included, and the base model at 0."""
    points = {files.step: np.asarray(flat(dense_deltas(files))) for files in checkpoints(run)}
    return {0: np.zeros_like(points[max(points)])} | points


def dense_choice(drift: dict[int, Vector], horizon: int) -> int:
    """The first step of the best line: every line held against every later step of the run."""
    steps = sorted(drift)
    last = steps[-1]
    errors = []
    for start in reversed(steps[:-1]):
        error = 0.0
        for origin in steps[1:-1]:
            earlier = [step for step in steps if step < origin]
            begin = min(earlier, key=lambda step: (abs(step - (origin - last + start)), -step))
            for end in (step for step in steps if step > origin):
                ahead = end - origin
                if ahead > horizon and end != steps[steps.index(origin) + 1]:
                    continue
                weight = 0.5 ** ((last - origin) / 10) * (ahead / horizon) ** 0.5
                predicted = ahead / (origin - begin) * (drift[origin] - drift[begin])
                error += weight * float(np.sum((predicted - (drift[end] - drift[origin])) ** 2))
        errors.append((error, -start))
    return -min(errors)[1]


@settings(deadline=None, max_examples=20)
@given(
    steps=st.sampled_from([EVEN, UNEVEN, FROM_ZERO]),
    horizon=st.sampled_from([5, 30, 100]),
    ends=st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda ends: ends[0] != ends[1]),
    jumped=st.booleans(),
)
def test_the_line_goes_through_the_steps_that_were_given(
    steps: list[int],
    horizon: int,
    ends: tuple[int, int],
    jumped: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    run = write_run(folder / "run", steps)
    jumps = write_run(folder / "jumps", [steps[2]], seed=5) if jumped else None
    drift = dense_drift(run, jumps)
    known = sorted(drift)
    begin, end = sorted(known[min(index, len(known) - 1)] for index in sorted(ends))
    if begin == end:
        begin = known[-2]
    expected = dense_line(drift, begin, end, steps[-1] + horizon)
    update, actual = fitted(WeightExtrapolation(from_step=begin, to_step=end), run, horizon, jumps)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
    assert update.warnings == ()
    if end == steps[-1]:
        _, to_the_last = fitted(WeightExtrapolation(from_step=begin), run, horizon, jumps)
        np.testing.assert_array_equal(to_the_last, actual)


@settings(deadline=None, max_examples=20)
@given(
    steps=st.sampled_from([EVEN, UNEVEN, FROM_ZERO]),
    horizon=st.sampled_from([5, 30, 100]),
    begin=st.integers(0, 3),
    jumped_at=st.sampled_from([(), (2,), (1, 3)]),
)
def test_with_momentum_the_line_goes_through_the_checkpoints_as_they_are(
    steps: list[int],
    horizon: int,
    begin: int,
    jumped_at: tuple[int, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    run = write_run(folder / "run", steps)
    jumps = write_run(folder / "jumps", [steps[at] for at in jumped_at], seed=5) if jumped_at else None
    positions = dense_positions(run)
    start = sorted(positions)[begin]
    expected = dense_line(positions, start, steps[-1], steps[-1] + horizon)
    _, actual = fitted(WeightExtrapolation(from_step=start, momentum=True), run, horizon, jumps)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


def test_in_a_cycle_momentum_repeats_the_last_jump_and_adds_the_new_drift(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 30, 40])
    jumps = write_run(tmp_path / "jumps", [20], seed=5)
    at_20 = dense_positions(run)[20]
    (swapped,) = (np.asarray(flat(dense_deltas(files))) for files in checkpoints(jumps))
    drift = dense_drift(run, jumps)
    _, without = fitted(WeightExtrapolation(window_steps=20), run, 20, jumps)
    _, repeated = fitted(WeightExtrapolation(window_steps=20, momentum=True), run, 20, jumps)
    np.testing.assert_allclose(without, drift[40] - drift[20], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(repeated, without + (swapped - at_20), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(
    steps=st.sampled_from([EVEN, UNEVEN, FROM_ZERO, [10, 20]]),
    horizon=st.sampled_from([5, 30, 100]),
    seed=st.integers(0, 99),
    jumped=st.booleans(),
)
def test_auto_chooses_the_line_of_the_least_error_on_the_tail(
    steps: list[int], horizon: int, seed: int, jumped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    run = write_run(folder / "run", steps, seed=seed)
    jumps = write_run(folder / "jumps", [steps[0]], seed=seed + 1) if jumped else None
    drift = dense_drift(run, jumps)
    begin = dense_choice(drift, horizon)
    update, actual = fitted(WeightExtrapolation(window_steps="auto"), run, horizon, jumps)
    expected = dense_line(drift, begin, steps[-1], steps[-1] + horizon)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
    assert update.warnings == (
        f"The line starts {steps[-1] - begin} steps before the last checkpoint, which backtests chose.",
    )


def test_steps_that_a_backtest_hides_move_back_together(run_folder: Path) -> None:
    trajectory = Trajectory.open(checkpoints(run_folder))
    given = WeightExtrapolation(from_step=80, to_step=120)
    hidden = backtest(given, extract(trajectory, given, 30), 30)
    moved = WeightExtrapolation(from_step=50, to_step=90)
    alone = backtest(moved, extract(trajectory, moved, 30), 30)
    (at_origin,) = compare(trajectory, [moved], at_step=90, horizon_steps=30)
    assert isinstance(at_origin, Backtest)
    assert_same_scores(hidden.modules, alone.modules)
    assert_same_scores(hidden.modules, at_origin.modules)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (WeightExtrapolation(from_step=35), "from_step cannot be 35: choose one of 0, 10, 20."),
        (WeightExtrapolation(from_step=30), "from_step cannot be 30: choose one of 0, 10, 20."),
        (
            WeightExtrapolation(from_step=10, to_step=25),
            "to_step cannot be 25: choose one of 0, 10, 20, 30.",
        ),
    ],
)
def test_steps_that_were_not_saved_are_named(line: WeightExtrapolation, message: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 30])
    with pytest.raises(LineStepError) as raised:
        fitted(line, run, 10)
    assert str(raised.value) == message


@pytest.mark.parametrize("from_step", [None, 20])
def test_a_line_needs_a_start_before_its_end(from_step: int | None) -> None:
    with pytest.raises(ValueError, match="to_step needs a from_step that is smaller"):
        WeightExtrapolation(from_step=from_step, to_step=20)
