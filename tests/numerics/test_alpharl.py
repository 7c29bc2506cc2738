"""AlphaRL against dense singular value decompositions and partial least squares written out in numpy."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from fixtures.adapters import MODULES, write_run
from fixtures.combinations import Vector, by_module, dense_drift, fitted, shapes
from fixtures.dense import assert_same_scores, checkpoints
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nextrapolate_numerics import (
    AlphaRl,
    Backtest,
    ScoreCountError,
    TooFewCheckpointsError,
    Trajectory,
    backtest,
    compare,
    extract,
)
from nextrapolate_numerics.methods.alpharl import Line
from nextrapolate_numerics.update import RankOne, Sum

EVEN, UNEVEN, FROM_ZERO = [10, 20, 30, 40, 50, 60], [5, 10, 30, 40, 70, 80], [0, 10, 20, 30, 50]
RESTING = next(iter(MODULES))
REWARDS = (0.21, 0.2, 0.34, 0.3, 0.41, 0.55)


def dense_alpharl(drift: dict[int, Vector], shape: tuple[int, int], horizon: int, method: AlphaRl) -> Vector:
    """One module: the formulas of the paper, a vector and a matrix at a time."""
    steps = sorted(drift)[1:]
    matrices = {step: drift[step].reshape(shape) for step in steps}
    last = steps[-1]
    if not matrices[last].any():
        return np.zeros(shape).ravel()
    U, S, Vt = np.linalg.svd(matrices[last])
    u_last, v_last = U[:, 0], Vt[0]
    rows = []
    for step in steps:
        U, S, Vt = np.linalg.svd(matrices[step])
        sign = 1.0 if U[:, 0] @ u_last + Vt[0] @ v_last >= 0 else -1.0
        rows.append(sign * S[0] * U[:, 0])
    a = np.stack(rows)
    rewards = None if method.rewards is None else method.rewards[-len(steps) :]
    y = np.array(steps if rewards is None else rewards, dtype=float)
    line = np.polyfit(steps, y, 1)
    now, target = (line[0] * step + line[1] for step in (last, last + horizon))
    if method.target_reward is not None:
        target = method.target_reward
    X, response = a - a.mean(axis=0), y - y.mean()
    w = X.T @ response / np.linalg.norm(X.T @ response)
    t = X @ w
    p, q = X.T @ t / (t @ t), response @ t / (t @ t)

    def at(score: float) -> Vector:
        return np.asarray(a.mean(axis=0) + (score - y.mean()) / q * p)

    if method.mode == "last":
        return np.asarray(np.outer(at(target) - at(now), v_last).ravel())
    return np.asarray(np.outer(at(target), v_last).ravel() - drift[last])


@settings(deadline=None, max_examples=30)
@given(
    steps=st.sampled_from([EVEN, UNEVEN, FROM_ZERO]),
    horizon=st.sampled_from([5, 30, 100]),
    scored=st.sampled_from([None, "line", "target"]),
    mode=st.sampled_from(["last", "line"]),
    jumped=st.booleans(),
)
def test_alpharl_is_the_dense_regression(
    steps: list[int],
    horizon: int,
    scored: str | None,
    mode: Literal["last", "line"],
    jumped: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    run = write_run(folder / "run", steps)
    jumps = write_run(folder / "jumps", [steps[2]], seed=5) if jumped else None
    method = AlphaRl(
        rewards=REWARDS[: len(steps)] if scored else None,
        target_reward=0.7 if scored == "target" else None,
        mode=mode,
    )
    sizes = shapes(Trajectory.open(checkpoints(run)))
    drift = by_module(run, dense_drift(run, jumps))
    expected = np.concatenate(
        [dense_alpharl(module, sizes[name], horizon, method) for name, module in drift.items()]
    )
    _, actual = fitted(method, run, horizon, jumps)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_rewards_in_step_with_time_are_time(tmp_path: Path) -> None:
    """A reward that is a line of the step says what the step says."""
    run = write_run(tmp_path / "run", UNEVEN)
    rewards = tuple(0.1 + 0.002 * step for step in UNEVEN)
    modes: list[Literal["last", "line"]] = ["last", "line"]
    for mode in modes:
        _, by_steps = fitted(AlphaRl(mode=mode), run, 30)
        _, by_rewards = fitted(AlphaRl(mode=mode, rewards=rewards), run, 30)
        np.testing.assert_allclose(by_rewards, by_steps, rtol=1e-6, atol=1e-9)


def test_a_backtest_does_not_look_at_the_rewards_it_hides(run_folder: Path) -> None:
    rising = tuple(0.1 * step for step in range(12))
    trajectory = Trajectory.open(checkpoints(run_folder))
    (alone,) = compare(trajectory, [AlphaRl(rewards=rising[:9])], at_step=90, horizon_steps=30)
    assert isinstance(alone, Backtest)
    for rewards in (rising, (*rising[:9], 5.0, -3.0, 0.0)):
        method = AlphaRl(rewards=rewards)
        scores = backtest(method, extract(trajectory, method, 30), 30)
        assert_same_scores(scores.modules, alone.modules)


def test_what_the_component_explains_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", EVEN)
    by_steps, _ = fitted(AlphaRl(), run, 30)
    assert by_steps.warnings[0].startswith("AlphaRL's component explains 99.")
    by_rewards, _ = fitted(AlphaRl(rewards=REWARDS, target_reward=0.6), run, 30)
    assert "the rewards (solved for 0.6)" in by_rewards.warnings[0]


def test_what_it_predicts_keeps_no_checkpoint_in_memory(tmp_path: Path) -> None:
    """A view of one vector would keep those of all checkpoints, for as long as the update lives."""
    update, _ = fitted(AlphaRl(mode="line"), write_run(tmp_path / "run", EVEN), 30)
    assert isinstance(update, Sum)
    line = update.terms[0]
    assert isinstance(line, RankOne)
    for triple in line.triples.values():
        for vector in (triple.u, triple.v):
            assert vector.untyped_storage().nbytes() == vector.nbytes


def test_rewards_that_never_differ_lead_nowhere(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", EVEN)
    update, actual = fitted(AlphaRl(rewards=(0.5,) * 6), run, 30)
    assert not actual.any()
    assert "no direction of improvement, and no update" in update.warnings[0]


@pytest.mark.parametrize("reward", [k / 100 for k in range(1, 100)])
def test_the_mean_of_equal_rewards_may_be_another_number(reward: float) -> None:
    """Their distances from it are rounding, and what is divided by it would be written into the adapter."""
    vectors = torch.randn(14, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert Line.of(vectors, torch.full((14,), reward, dtype=torch.float64)) is None


@pytest.mark.parametrize("steps", [EVEN, UNEVEN])
def test_a_module_that_has_rested_since_the_first_checkpoint_gets_no_update(
    steps: list[int], tmp_path: Path
) -> None:
    """Its leading vectors differ by rounding alone, whose direction is not one to follow."""
    run = write_run(tmp_path / "run", steps)
    first, *later = checkpoints(run)
    resting = {key: value for key, value in load_file(first.model).items() if RESTING in key}
    for files in later:
        save_file(load_file(files.model) | resting, files.model)
    for method in (AlphaRl(), AlphaRl(mode="line"), AlphaRl(rewards=REWARDS)):
        update, _ = fitted(method, run, 50)
        assert RESTING not in update.modules()
        assert update.modules()


@pytest.mark.parametrize("count", [5, 7])
def test_one_reward_for_each_checkpoint_is_asked_for(count: int, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", EVEN)
    with pytest.raises(ScoreCountError, match=rf"There are {count} rewards, but 6 checkpoints"):
        fitted(AlphaRl(rewards=tuple(range(count))), run, 10)


def test_alpharl_says_how_many_checkpoints_it_needs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0, 10])
    with pytest.raises(TooFewCheckpointsError, match="alpharl needs at least 3 checkpoints"):
        fitted(AlphaRl(), run, 10)


def test_a_target_without_rewards_is_refused() -> None:
    with pytest.raises(ValueError, match="target_reward needs rewards"):
        AlphaRl(target_reward=0.5)
