"""The geometry of a run, against the definitions on dense float64 weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.adapters import MODULES, RANK, write_adapter, write_run
from fixtures.combinations import Vector, by_module, dense_drift
from fixtures.dense import checkpoints
from safetensors.torch import load_file, save_file

from nextrapolate_numerics import (
    Auto,
    Backtest,
    Geometry,
    NextPaper,
    NoBacktestError,
    NothingMovedError,
    TooFewCheckpointsError,
    Trajectory,
    backtest,
    extract,
    inspect,
)

STILL = list(MODULES)[-1]
UNEVEN = [10, 20, 30, 45, 60, 70, 95, 100, 110]


def line(steps: list[int], weights: Vector, fitted: int) -> Vector:
    """The weights that a least-squares line through the first `fitted` steps gives at all of them."""
    design = np.stack([np.ones(len(steps)), np.array(steps, dtype=float)], axis=1)
    solution = np.linalg.lstsq(design[:fitted], weights[:fitted], rcond=None)[0]
    return np.asarray(design @ solution)


def r_squared(missed: Vector, weights: Vector, mean: Vector | np.float64) -> float:
    return float(1 - (missed**2).sum() / ((weights - mean) ** 2).sum())


@pytest.mark.parametrize("jumped", [False, True])
def test_linearity_is_what_the_three_definitions_say(jumped: bool, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", UNEVEN)
    jumps = write_run(tmp_path / "jumps", [45], seed=1) if jumped else None
    geometry = inspect(Trajectory.open(checkpoints(run), checkpoints(jumps) if jumps else [])).geometry
    assert geometry.steps == tuple(UNEVEN)
    drift = by_module(run, dense_drift(run, jumps))
    for name, module in geometry.modules.items():
        weights = np.stack([drift[name][step] for step in UNEVEN])
        missed = (weights - line(UNEVEN, weights, 6))[6:]
        late = weights[6:]
        whole = weights - line(UNEVEN, weights, len(UNEVEN))
        found = module.linearity
        assert found.held_out_by_coordinate == pytest.approx(r_squared(missed, late, late.mean(axis=0)))
        assert found.held_out_pooled == pytest.approx(r_squared(missed, late, late.mean()))
        assert found.in_sample == pytest.approx(r_squared(whole, weights, weights.mean(axis=0)))


def test_a_module_at_rest_is_on_its_line(tmp_path: Path) -> None:
    """From step 60 on nothing moves: what scatters there is rounding."""
    run = write_run(tmp_path / "run", UNEVEN)
    for step in UNEVEN[5:]:
        shutil.copytree(run / "checkpoint-60", run / f"checkpoint-{step}", dirs_exist_ok=True)
    for module in inspect(Trajectory.open(checkpoints(run))).geometry.modules.values():
        assert module.linearity.held_out_by_coordinate == 1.0
        assert module.linearity.in_sample < 1


@pytest.mark.parametrize("jumped_at", [[], [45], [20, 30, 60, 95, 100]], ids=str)
def test_energy_and_variance_are_those_of_the_dense_deltas(jumped_at: list[int], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", UNEVEN)
    jumps = write_run(tmp_path / "jumps", jumped_at, seed=1) if jumped_at else None
    geometry = inspect(Trajectory.open(checkpoints(run), checkpoints(jumps) if jumps else [])).geometry
    drift = by_module(run, dense_drift(run, jumps))
    assert set(geometry.modules) == set(MODULES) - {STILL}
    assert geometry.still == (STILL,)
    for name, module in geometry.modules.items():
        weights = [drift[name][step] for step in UNEVEN]
        spectra = [np.linalg.svd(delta.reshape(MODULES[name]), compute_uv=False) for delta in weights]
        expected = [float(spectrum[0] / spectrum.sum()) for spectrum in spectra]
        assert module.energy_ratios == pytest.approx(expected, rel=1e-4)
        energies = np.linalg.svd(np.stack(weights), compute_uv=False) ** 2
        assert module.variance_explained == pytest.approx(energies.cumsum()[:3] / energies.sum())
        squares = np.square(np.stack(weights)).sum(axis=1)
        np.testing.assert_allclose(module.squared_norms, squares, rtol=1e-9)


def test_factors_that_move_and_leave_their_product_have_no_direction(tmp_path: Path) -> None:
    """B doubled and A halved is the same delta: what is measured from there is 0."""
    run = write_run(tmp_path / "run", [10, 20, 30, 40], init_lora_weights=False)
    files = checkpoints(run)
    name = f"base_model.model.{next(iter(MODULES))}"
    first = load_file(files[0].model)
    for power, each in enumerate(files):
        factors = {f"{name}.lora_B.weight": 2.0**power, f"{name}.lora_A.weight": 0.5**power}
        save_file(load_file(each.model) | {key: first[key] * by for key, by in factors.items()}, each.model)
    shares = inspect(Trajectory.open(files)).geometry.modules[next(iter(MODULES))].variance_explained
    assert set(shares) == {0.0}


def test_the_track_is_that_of_all_modules_together(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", UNEVEN)
    shutil.copytree(run / "checkpoint-95", run / "checkpoint-100", dirs_exist_ok=True)
    geometry = inspect(Trajectory.open(checkpoints(run))).geometry
    drift = by_module(run, dense_drift(run, None))
    whole = {step: np.concatenate([drift[name][step] for name in geometry.modules]) for step in UNEVEN}
    for index, found in enumerate(geometry.track):
        step = UNEVEN[index]
        assert found.step == step
        assert found.drift_norm == pytest.approx(np.linalg.norm(whole[step]))
        if index == 0:
            assert found.speed is None
            continue
        added = whole[step] - whole[UNEVEN[index - 1]]
        size = np.linalg.norm(added)
        assert found.speed == pytest.approx(size / (step - UNEVEN[index - 1]), abs=1e-6)
        if index == 1 or step in (100, 110):
            assert found.steadiness is None, "of two increments one is missing, or 0"
            continue
        before = whole[UNEVEN[index - 1]] - whole[UNEVEN[index - 2]]
        cosine = added @ before / (size * np.linalg.norm(before))
        assert found.steadiness == pytest.approx(cosine)


def test_kinds_are_means_over_their_modules(tmp_path: Path) -> None:
    geometry = inspect(Trajectory.open(checkpoints(write_run(tmp_path / "run", UNEVEN)))).geometry
    assert [kind.name for kind in geometry.kinds] == sorted(
        {name.split(".")[-1] for name in geometry.modules}
    )
    for kind in geometry.kinds:
        modules = [module for name, module in geometry.modules.items() if name.endswith(f".{kind.name}")]
        assert kind.modules == len(modules)
        ratios = np.mean([module.energy_ratios for module in modules], axis=0)
        assert kind.energy_ratios == pytest.approx(ratios)
        squares = sum(module.squared_norms.numpy() for module in modules)
        assert kind.drift_norms == pytest.approx(np.sqrt(squares))


def test_a_methods_reading_measures_the_same(tmp_path: Path) -> None:
    trajectory = Trajectory.open(checkpoints(write_run(tmp_path / "run", UNEVEN)))
    found = Geometry.of(extract(trajectory, NextPaper(), 20, geometry=True))
    alone = inspect(trajectory).geometry
    assert (found.steps, found.still) == (alone.steps, alone.still)
    assert [module.linearity for module in found.modules.values()] == [
        module.linearity for module in alone.modules.values()
    ]


def test_a_steady_run_speaks_for_extrapolation(run_folder: Path) -> None:
    trajectory = Trajectory.open(checkpoints(run_folder))
    evidence = inspect(trajectory).evidence
    assert isinstance(evidence, Backtest)
    assert evidence.modules == backtest(Auto(), extract(trajectory, Auto(), 40), 40).modules
    assert (evidence.origin_step, evidence.target_step) == (80, 120)
    assert evidence.total.relative_error < 0.8


def test_three_checkpoints_are_the_least(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 30])
    geometry = inspect(Trajectory.open(checkpoints(run))).geometry
    linearity = next(iter(geometry.modules.values())).linearity
    assert (linearity.held_out_by_coordinate, linearity.held_out_pooled) == (None, None)
    assert 0 < linearity.in_sample <= 1
    with pytest.raises(TooFewCheckpointsError, match="3"):
        inspect(Trajectory.open(checkpoints(run)[:2]))


def test_a_run_that_never_moved_has_no_geometry(tmp_path: Path) -> None:
    (name, (m, n)), *_ = MODULES.items()
    for step in (10, 20, 30):
        tensors = {"lora_B": torch.zeros(m, RANK), "lora_A": torch.ones(RANK, n)}
        write_adapter(
            tmp_path / f"checkpoint-{step}",
            {f"base_model.model.{name}.{factor}.weight": tensor for factor, tensor in tensors.items()},
        )
    with pytest.raises(NothingMovedError):
        inspect(Trajectory.open(checkpoints(tmp_path)))


def test_a_run_that_stopped_moving_is_not_called_too_short(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 30, 40, 50, 60])
    for step in (40, 50, 60):
        shutil.rmtree(run / f"checkpoint-{step}")
        shutil.copytree(run / "checkpoint-30", run / f"checkpoint-{step}")
    evidence = inspect(Trajectory.open(checkpoints(run))).evidence
    assert isinstance(evidence, NoBacktestError)
    assert evidence.why.startswith("no module changed from step 40 to step 60")
