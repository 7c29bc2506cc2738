"""Auto, against its equations on dense float64 vectors, and what must hold whatever the run."""

import itertools
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.adapters import MODULES, write_adapter, write_run
from fixtures.combinations import Vector, by_module, dense_drift, fitted
from fixtures.dense import checkpoints
from fixtures.kriging import increment_covariance
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nextrapolate_numerics import (
    Auto,
    Choice,
    GateThresholds,
    Trajectory,
    Update,
    backtest,
    extend,
    extract,
)

Prediction = Callable[[list[int], int], Vector]
Factors = tuple[torch.Tensor, torch.Tensor]
Q, DOWN, FROZEN = MODULES


def kriging(drift: dict[int, Vector], memory: tuple[float, float, float]) -> Prediction:
    def predicted(known: list[int], target: int) -> Vector:
        K = increment_covariance([*known, target], memory)
        weights = np.linalg.solve(K[:-1, :-1], K[:-1, -1])
        increments = np.diff([drift[step] for step in known], axis=0)
        return np.asarray(weights @ increments)

    return predicted


def line(drift: dict[int, Vector], window: int) -> Prediction:
    def predicted(known: list[int], target: int) -> Vector:
        origin = known[-1]
        begin = min(known[:-1], key=lambda step: (abs(step - (origin - window)), -step))
        return (target - origin) / (origin - begin) * (drift[origin] - drift[begin])

    return predicted


def candidates(drift: dict[int, Vector]) -> list[tuple[float, Prediction]]:
    """Priors and predictions, as auto.py and candidates.py name them."""
    steps = sorted(drift)
    back = [count for count in (1, 2, 4, 8, 16) if count < len(steps) - 1] + [len(steps) - 1]
    memories = itertools.product((0.25, 0.5, 0.9), (0.0, 0.3, 1.0, 3.0), (0.5, 2.0, 8.0))
    return [
        *((1.0, kriging(drift, memory)) for memory in memories),
        *((0.01, line(drift, steps[-1] - steps[-1 - count])) for count in back),
        (1.0, lambda known, target: np.zeros_like(drift[known[-1]])),
    ]


def pairs(steps: list[int], horizon: int) -> list[tuple[list[int], int, float]]:
    """Steps up to each origin, a later step, and the weight of the pair."""
    found = []
    for i in range(1, len(steps) - 1):
        for end in steps[i + 1 :]:
            if end - steps[i] <= horizon or end == steps[i + 1]:
                weight = (steps[i] / steps[-1]) ** 10 * ((end - steps[i]) / horizon) ** 0.5
                found.append((steps[: i + 1], end, weight))
    return found


def dense_auto(drift: dict[str, dict[int, Vector]], horizon: int) -> dict[str, Vector]:
    """The equations of auto.py, a module after the other."""
    steps = sorted(next(iter(drift.values())))
    means, products = {}, {}
    for name, path in drift.items():
        asked = pairs(steps, horizon)
        truths = [path[end] - path[known[-1]] for known, end, _ in asked]
        norm = sum(w * (T @ T) for (_, _, w), T in zip(asked, truths, strict=True))
        shares = []
        for prior, predict in candidates(path):
            wrong = sum(
                w * ((predict(known, end) - T) ** 2).sum()
                for (known, end, w), T in zip(asked, truths, strict=True)
            )
            shares.append(prior * (wrong / norm) ** -16)

        def mean(
            known: list[int], end: int, path: dict[int, Vector] = path, shares: list[float] = shares
        ) -> Vector:
            total = sum(
                share * predict(known, end)
                for share, (_, predict) in zip(shares, candidates(path), strict=True)
            )
            return np.asarray(total / sum(shares))

        mixed = [mean(known, end) for known, end, _ in asked]
        products[name] = (
            sum(w * (P @ T) for (_, _, w), P, T in zip(asked, mixed, truths, strict=True)),
            sum(w * (P @ P) for (_, _, w), P in zip(asked, mixed, strict=True)),
        )
        means[name] = mean(steps, steps[-1] + horizon)
    common = sum(pt for pt, _ in products.values()) / sum(pp for _, pp in products.values())
    common = min(max(common, 0.0), 1.0)
    updates = {}
    for name, (pt, pp) in products.items():
        own = pt / pp
        updates[name] = max(0.0, min((own + 0.5 * common) / 1.5, 2 * own)) * means[name]
    return updates


def by_name(update: Update, trajectory: Trajectory) -> dict[str, Vector]:
    found = {}
    for name in update.modules():
        delta = update.delta(name, trajectory)
        found[name] = np.asarray((delta.B @ delta.A).flatten())
    return found


def chosen(update: Update) -> Choice:
    assert update.choice is not None
    return update.choice


def walk(folder: Path, steps: Iterable[int], increment: Callable[[int, torch.Size], torch.Tensor]) -> Path:
    """A run with constant A, whose B goes by `increment(index, shape)` from checkpoint to checkpoint."""
    generator = torch.Generator().manual_seed(7)
    A = {name: torch.randn(4, n, generator=generator) for name, (_, n) in MODULES.items()}
    B = {name: torch.zeros(m, 4) for name, (m, _) in MODULES.items()}
    for index, step in enumerate(steps):
        tensors = {}
        for name in MODULES:
            B[name] = B[name] + increment(index, B[name].shape)
            tensors[f"base_model.model.{name}.lora_B.weight"] = B[name]
            tensors[f"base_model.model.{name}.lora_A.weight"] = A[name]
        write_adapter(folder / f"checkpoint-{step}", tensors)
    return folder


@pytest.mark.parametrize("steps", [[10, 20, 30, 40, 50, 60], [5, 10, 30, 40, 70], [20, 50]])
@pytest.mark.parametrize("jumped", [False, True])
def test_auto_is_its_equations(steps: list[int], jumped: bool, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps)
    jumps = write_run(tmp_path / "jumps", [steps[len(steps) // 2 - 1]], seed=5) if jumped else None
    drift = by_module(run, dense_drift(run, jumps))
    expected = dense_auto({name: drift[name] for name in (Q, DOWN)}, 30)
    trajectory = Trajectory.open(checkpoints(run), checkpoints(jumps) if jumps else [])
    actual = by_name(Auto().fit(extract(trajectory, Auto(), 30), 30), trajectory)
    assert actual.keys() == {name for name, vector in expected.items() if vector.any()}
    for name, vector in actual.items():
        np.testing.assert_allclose(vector, expected[name], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("counted_from", [0, 1000])
def test_a_run_that_continues_an_adapter_is_as_old_as_its_series(counted_from: int, tmp_path: Path) -> None:
    """Its drift is measured from the first checkpoint, whatever step that has; so is its age."""
    short = write_run(tmp_path / "short", [10, 20, 40, 50, 60, 70], init_lora_weights=False)
    for files in checkpoints(short):
        shutil.copytree(files.model.parent, tmp_path / "run" / f"checkpoint-{counted_from + files.step}")
    run, begun = tmp_path / "run", counted_from + 10
    way = dense_drift(run)
    drift = by_module(run, {step - begun: way[step] - way[begun] for step in way if step})
    expected = dense_auto({name: drift[name] for name in (Q, DOWN)}, 30)
    trajectory = Trajectory.open(checkpoints(run))
    actual = by_name(Auto().fit(extract(trajectory, Auto(), 30), 30), trajectory)
    assert actual.keys() == {Q, DOWN}
    for name, vector in actual.items():
        np.testing.assert_allclose(vector, expected[name], rtol=1e-5, atol=1e-8)


def test_a_straight_line_is_recovered(tmp_path: Path) -> None:
    step = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
    run = walk(tmp_path / "run", range(10, 90, 10), lambda _, shape: step.repeat(2, 1)[: shape[0]])
    update, actual = fitted(Auto(), run, 50)
    drift = dense_drift(run)
    np.testing.assert_allclose(actual, (drift[80] - drift[0]) * 50 / 80, rtol=1e-4, atol=1e-5)
    assert chosen(update).candidates[0].label.startswith("weight extrapolation")
    assert chosen(update).relative_error == pytest.approx(0, abs=1e-3)


def test_what_alternates_is_left_alone(tmp_path: Path) -> None:
    run = walk(tmp_path / "run", range(10, 150, 10), lambda index, shape: (-1.0) ** index * torch.ones(shape))
    update, actual = fitted(Auto(), run, 50)
    assert not update.modules()
    assert not actual.any()
    assert update.warnings == (chosen(update).why,)
    assert "Nothing predicts this run" in chosen(update).why
    assert chosen(update).relative_error == 1


def test_noise_is_hardly_followed(tmp_path: Path) -> None:
    """What comes is sqrt(5) increments long, in no direction that could be known."""
    generator = torch.Generator().manual_seed(3)
    run = walk(tmp_path / "run", range(10, 160, 10), lambda _, shape: torch.randn(shape, generator=generator))
    _, actual = fitted(Auto(), run, 50)
    drift = dense_drift(run)
    assert np.linalg.norm(actual) < 0.1 * 5**0.5 * np.linalg.norm(drift[150] - drift[140])


@settings(deadline=None, max_examples=15)
@given(
    gaps=st.lists(st.integers(1, 40), min_size=2, max_size=9),
    horizon=st.integers(1, 200),
    wander=st.floats(0, 3),
    seed=st.integers(0, 999),
)
def test_never_worse_than_no_jump_on_its_own_past(
    gaps: list[int], horizon: int, wander: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    generator = torch.Generator().manual_seed(seed)
    heading = torch.randn(24, 4, generator=generator)
    steps = list(itertools.accumulate(gaps, initial=gaps[0]))

    def increment(index: int, shape: torch.Size) -> torch.Tensor:
        return heading.repeat(2, 1)[: shape[0]] + wander * torch.randn(shape, generator=generator)

    run = walk(tmp_path_factory.mktemp("runs") / "run", steps, increment)
    choice = chosen(fitted(Auto(), run, horizon)[0])
    assert choice.relative_error is not None
    assert choice.relative_error <= 1 + 1e-9
    assert all(kind.relative_error is not None and kind.relative_error <= 1 + 1e-9 for kind in choice.kinds)
    assert sum(candidate.share for candidate in choice.candidates) == pytest.approx(1)


def rewritten(
    run: Path, out: Path, change: Callable[[int, str, torch.Tensor, torch.Tensor], Factors]
) -> Path:
    """A copy of the run with each module's (B, A) at each step replaced by `change(step, module, B, A)`."""
    shutil.copytree(run, out)
    for files in checkpoints(out):
        tensors = load_file(files.model)
        for name in MODULES:
            keys = [f"base_model.model.{name}.lora_{factor}.weight" for factor in "BA"]
            changed = change(files.step, name, *(tensors[key] for key in keys))
            tensors |= {key: value.contiguous() for key, value in zip(keys, changed, strict=True)}
        save_file(tensors, files.model)
    return out


def test_the_gauge_of_the_factors_does_not_matter(run_folder: Path, tmp_path: Path) -> None:
    def rotated(step: int, name: str, B: torch.Tensor, A: torch.Tensor) -> Factors:
        generator = torch.Generator().manual_seed(step)
        R = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
        return (B.double() @ R.T).float(), (R @ A.double()).float()

    expected = fitted(Auto(), run_folder, 30)[1]
    actual = fitted(Auto(), rewritten(run_folder, tmp_path / "rotated", rotated), 30)[1]
    assert np.linalg.norm(actual - expected) < 1e-4 * np.linalg.norm(expected)


def test_a_run_at_another_scale_is_predicted_at_that_scale(run_folder: Path, tmp_path: Path) -> None:
    larger = rewritten(run_folder, tmp_path / "larger", lambda step, name, B, A: (8 * B, A))
    expected, actual = (fitted(Auto(), run, 30)[1] for run in (run_folder, larger))
    np.testing.assert_allclose(actual, 8 * expected, rtol=1e-9, atol=1e-12)


def test_what_modules_are_called_does_not_matter(run_folder: Path, tmp_path: Path) -> None:
    """Both modules of one shape change places; one of them never moves."""
    shutil.copytree(run_folder, tmp_path / "swapped")
    for files in checkpoints(tmp_path / "swapped"):
        tensors = load_file(files.model)
        swap = {"layers.0.self_attn": "layers.1.self_attn", "layers.1.self_attn": "layers.0.self_attn"}
        renamed = {}
        for key, tensor in tensors.items():
            part = next((old for old in swap if old in key), None)
            renamed[key.replace(part, swap[part]) if part else key] = tensor
        save_file(renamed, files.model)
    found = []
    for run in (run_folder, tmp_path / "swapped"):
        trajectory = Trajectory.open(checkpoints(run))
        found.append(by_name(Auto().fit(extract(trajectory, Auto(), 30), 30), trajectory))
    assert found[0].keys() == {Q, DOWN}
    np.testing.assert_allclose(found[1][FROZEN], found[0][Q], rtol=1e-9)
    np.testing.assert_allclose(found[1][DOWN], found[0][DOWN], rtol=1e-9)


def test_two_checkpoints_that_leave_nothing_to_hold_out(tmp_path: Path) -> None:
    """Without the base model two checkpoints are one increment: cautious, and said to be."""
    run = write_run(tmp_path / "run", [10, 20])
    for files in checkpoints(run):
        config = files.config.read_text()
        files.config.write_text(config.replace('"init_lora_weights": true', '"init_lora_weights": false'))
    update, actual = fitted(Auto(), run, 50)
    drift = dense_drift(run)
    increment = drift[20] - drift[10]
    along = float(actual @ increment / (increment @ increment))
    assert 0 < along < 5  # 50 steps at the pace of the last 10 would be 5
    np.testing.assert_allclose(actual, along * increment, atol=1e-9)
    choice = chosen(update)
    assert "too short to hold anything out" in choice.why
    assert choice.backtests == 0
    assert choice.relative_error is None
    assert {candidate.relative_error for candidate in choice.candidates} == {None}


def test_the_choice_is_told_in_numbers(run_folder: Path) -> None:
    choice = chosen(fitted(Auto(), run_folder, 30)[0])
    errors = [
        candidate.relative_error for candidate in choice.candidates if candidate.relative_error is not None
    ]
    assert errors == sorted(errors)
    assert len(errors) == len(choice.candidates)
    assert [(kind.kind, kind.modules) for kind in choice.kinds] == [("down_proj", 1), ("q_proj", 1)]
    assert choice.backtests == 30  # 11 + 10 + 9 pairs of 12 checkpoints 1, 2 and 3 apart
    assert "30 backtests on this run's own past, up to 30 steps ahead" in choice.why
    fitted_to = "(it is fitted to them, so that this is never above 1)"
    assert f"relative error is {choice.relative_error:.2f} {fitted_to}, where no jump scores 1" in choice.why
    none = next(candidate for candidate in choice.candidates if candidate.label == "no jump")
    assert none.relative_error == 1


def test_a_run_that_stopped_is_told_by_what_is_made_of_it(tmp_path: Path) -> None:
    """No jump has nearly all of the shares then; what the others make is short, and said to be."""
    generator = torch.Generator().manual_seed(1)

    def increment(index: int, shape: torch.Size) -> torch.Tensor:
        return torch.full(shape, float(index < 5)) * (1 + 0.5 * torch.randn(shape, generator=generator))

    update, actual = fitted(Auto(), walk(tmp_path / "run", range(10, 160, 10), increment), 50)
    assert actual.any()
    choice = chosen(update)
    assert all(0 < kind.amplitude < 0.1 and kind.leading != "no jump" for kind in choice.kinds)
    assert {found.label: found.share for found in choice.candidates}["no jump"] == 0
    assert sum(found.share for found in choice.candidates) == pytest.approx(1)
    assert "0% no jump, and 0.0" in choice.why


def test_a_long_series_is_tried_at_some_of_its_checkpoints(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", range(1, 81), modules={"q_proj": (5, 4)})
    assert chosen(fitted(Auto(), run, 40)[0]).backtests < 32 * 16


def test_the_gate_holds_back_modules_of_a_mixture(run_folder: Path, tmp_path: Path) -> None:
    extraction = extract(Trajectory.open(checkpoints(run_folder)), Auto(), 30)
    weakest = min(extraction.moved, key=lambda name: extraction.energy_ratios[name])
    between = sum(extraction.energy_ratios[name] for name in extraction.moved) / 2
    extension = extend(
        extraction,
        Auto().fit(extraction, 30),
        alpha=1.0,
        gate=GateThresholds(min_energy_ratio=between),
        backtest=backtest(Auto(), extraction, 30),
        folder=tmp_path,
    )
    assert {module.name for module in extension.modules if module.gated} == {weakest}
    for module in extension.modules:
        assert (module.update_norm > 0) == (module.name in extraction.moved - {weakest})
