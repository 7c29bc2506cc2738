"""A series of files as one trajectory: its order, its agreement, its jumps taken out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.adapters import MODULES, RANK, write_adapter, write_run
from fixtures.combinations import shapes
from fixtures.dense import adapter_files, checkpoints, dense_deltas
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nextrapolate_numerics import (
    AdapterFiles,
    JumpWithoutCheckpointError,
    MismatchedAdaptersError,
    NonFiniteWeightsError,
    StepOrderError,
    TooFewCheckpointsError,
    Trajectory,
)
from nextrapolate_numerics.series import Drift

DOWN = "model.layers.0.mlp.down_proj"
FROZEN = list(MODULES)[-1]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", [10, 20, 30, 40])


def rewritten(folder: Path, step: int, **config: Any) -> AdapterFiles:
    """The checkpoint again, one step later and under another config."""
    source = folder / f"checkpoint-{step}" / "adapter_model.safetensors"
    return adapter_files(write_adapter(folder / "rewritten", load_file(source), **config), step + 1)


def test_modules_are_read_with_their_scaling(run: Path) -> None:
    trajectory = Trajectory.open(checkpoints(run))
    assert trajectory.steps == (10, 20, 30, 40)
    assert trajectory.module_names == tuple(sorted(MODULES))
    assert shapes(trajectory) == MODULES
    for name in trajectory.module_names:
        factors = trajectory.module(name)
        for index, files in enumerate(checkpoints(run)):
            dense = factors.scaling * factors.B[index].double() @ factors.A[index].double()
            torch.testing.assert_close(dense, dense_deltas(files)[name])
        for found, expected in zip(
            trajectory.module(name, [3, 1]).A, (factors.A[3], factors.A[1]), strict=True
        ):
            assert torch.equal(found, expected)


def test_halves_are_read_as_float32_and_warned_of(run: Path) -> None:
    for files in checkpoints(run):
        halved = {key: tensor.bfloat16() for key, tensor in load_file(files.model).items()}
        save_file(halved, files.model)
    trajectory = Trajectory.open(checkpoints(run))
    assert trajectory.module(DOWN).A[0].dtype == torch.float32
    assert any("BF16" in warning for warning in trajectory.warnings)


def test_other_tensors_are_warned_of(run: Path) -> None:
    last = checkpoints(run)[-1]
    save_file(load_file(last.model) | {"base_model.model.lm_head.weight": torch.ones(3)}, last.model)
    assert any("lm_head" in warning for warning in Trajectory.open(checkpoints(run)).warnings)


def test_one_checkpoint_is_no_trajectory(run: Path) -> None:
    with pytest.raises(TooFewCheckpointsError, match="at least 2"):
        Trajectory.open(checkpoints(run)[:1])


@pytest.mark.parametrize("order", [[0, 2, 1], [0, 1, 1]])
def test_steps_have_to_ascend(order: list[int], run: Path) -> None:
    files = checkpoints(run)
    with pytest.raises(StepOrderError, match="ascend"):
        Trajectory.open([files[index] for index in order])


def test_a_jump_needs_its_own_checkpoint(run: Path) -> None:
    jump = adapter_files(run / "checkpoint-40", 25)
    with pytest.raises(JumpWithoutCheckpointError, match="step 25"):
        Trajectory.open(checkpoints(run), [jump])


def test_jumps_have_to_ascend(run: Path) -> None:
    jump = adapter_files(run / "checkpoint-40", 20)
    with pytest.raises(StepOrderError, match="jumps"):
        Trajectory.open(checkpoints(run), [jump, jump])


def test_jumps_after_the_last_checkpoint_left_no_trace(run: Path) -> None:
    jump = adapter_files(run / "checkpoint-10", 40)
    assert Trajectory.open(checkpoints(run), [jump]).jump_steps == ()


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"base_model_name_or_path": "another"}, "base model"),
        ({"lora_alpha": 99}, "scaling"),
        ({"use_rslora": True}, "scaling"),
    ],
)
def test_configs_have_to_agree(config: dict[str, Any], what: str, run: Path) -> None:
    with pytest.raises(MismatchedAdaptersError, match=what):
        Trajectory.open([*checkpoints(run), rewritten(run, 40, **config)])


def test_of_patterns_the_first_that_matches_counts_and_has_to_agree(tmp_path: Path) -> None:
    """Two configs that are equal as dictionaries, and tell of another scaling."""
    patterns = {"down_proj": 4, ".*proj": 16}
    run = write_run(tmp_path / "run", [10, 20], alpha_pattern=patterns)
    write_run(tmp_path / "run", [30], alpha_pattern=dict(reversed(patterns.items())))
    with pytest.raises(MismatchedAdaptersError, match="scaling"):
        Trajectory.open(checkpoints(run))


def test_training_moves_a_module_and_a_jump_does_not(tmp_path: Path) -> None:
    """Module `still` has one value before the jump and another one after it; of `zero` A alone changes."""
    modules = {"moving": (5, 6), "still": (7, 8), "zero": (4, 3), "last": (3, 3)}
    run = write_run(tmp_path / "run", [10, 20, 30, 40], modules=modules)
    files, jumped = checkpoints(run), checkpoints(write_run(tmp_path / "jump", [20], modules=modules))
    before, after = load_file(files[0].model), load_file(jumped[0].model)
    for of, held in zip((*files, *jumped), (before, before, after, after, after), strict=True):
        tensors = load_file(of.model)
        tensors |= {key: held[key] for key in tensors if "still" in key}
        tensors |= {key: tensors[key] * 0 for key in tensors if "zero.lora_B" in key}
        save_file(tensors, of.model)
    for config in (each.config for each in (*files, *jumped)):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"init_lora_weights": False}))
    trajectory = Trajectory.open(files, jumped)
    assert {name for name in modules if trajectory.moved(name)} == {"moving"}


@pytest.mark.parametrize(
    ("modules", "rank", "what"),
    [
        (MODULES, RANK + 1, "rank 5, not 4"),
        (MODULES | {DOWN: (16, 41)}, RANK, "shape"),
        ({DOWN: MODULES[DOWN]}, RANK, "adapted modules differ"),
    ],
)
def test_ranks_shapes_and_targets_have_to_agree(
    modules: dict[str, tuple[int, int]], rank: int, what: str, run: Path, tmp_path: Path
) -> None:
    other = write_run(tmp_path / "other", [50], modules=modules, rank=rank)
    with pytest.raises(MismatchedAdaptersError, match=what):
        Trajectory.open([*checkpoints(run), *checkpoints(other)])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_inf_are_found_with_module_step_and_file(value: float, run: Path) -> None:
    files = checkpoints(run)[2]
    tensors = load_file(files.model)
    tensors[f"base_model.model.{DOWN}.lora_A.weight"][1, 2] = value
    save_file(tensors, files.model)
    trajectory = Trajectory.open(checkpoints(run))
    trajectory.module(FROZEN)
    with pytest.raises(NonFiniteWeightsError, match="step 30") as refusal:
        trajectory.module(DOWN)
    assert (refusal.value.module, refusal.value.step, refusal.value.path) == (DOWN, 30, files.model)


def test_drift_takes_jumps_out(run: Path, tmp_path: Path) -> None:
    jumped = write_run(tmp_path / "jumped", [20, 30], seed=7)
    trajectory = Trajectory.open(checkpoints(run), checkpoints(jumped))
    points = [dense_deltas(files)[DOWN] for files in [*checkpoints(run), *checkpoints(jumped)]]
    for index, step in enumerate([10, 20, 30, 40]):
        expected = points[index]
        for jump, own in ((4, 1), (5, 2)):
            if trajectory.points[jump].step < step:
                expected = expected - (points[jump] - points[own])
        row = trajectory.drift.coefficients[index + 1]
        actual = sum(weight * point for weight, point in zip(row, points, strict=True))
        torch.testing.assert_close(actual, expected)


@settings(deadline=None, max_examples=60)
@given(
    steps=st.lists(st.integers(0, 500), min_size=2, max_size=9, unique=True).map(sorted),
    data=st.data(),
    starts_at_base=st.booleans(),
)
def test_spans_sum_to_the_drift(steps: list[int], data: st.DataObject, starts_at_base: bool) -> None:
    jumps = sorted(data.draw(st.sets(st.sampled_from(steps[:-1]))))
    drift = Drift.of(steps, jumps, starts_at_base=starts_at_base)
    assert drift.last_point == len(steps) - 1
    assert list(drift.steps) == ([0, *steps] if starts_at_base and steps[0] > 0 else steps)
    for start in range(len(drift.steps) - 1):
        for end in range(start + 1, len(drift.steps)):
            total = torch.zeros(drift.points, dtype=torch.float64)
            for begin, finish in drift.spans(start, end):
                total[finish] += 1
                if begin is not None:
                    total[begin] -= 1
            assert torch.equal(total, drift.coefficients[end] - drift.coefficients[start])


def test_pairs_follow_the_steps_not_the_index() -> None:
    drift = Drift.of([10, 20, 40, 50, 90, 100], [], starts_at_base=True)
    steps = [(drift.steps[i], drift.steps[j]) for i, j in drift.pairs(40)]
    assert steps == [(10, 50), (20, 50), (40, 90), (50, 90)]
    assert Drift.of([10, 20], [], starts_at_base=True).pairs(3) == ((1, 2),)
