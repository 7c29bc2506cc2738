"""The written adapter: gates, ranks, dtypes and bytes."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from fixtures.adapters import MODULES, RANK, write_adapter
from fixtures.dense import adapter_files, checkpoints, dense_deltas, flat
from safetensors.torch import load_file, save_file
from torch import Tensor

from nextrapolate_numerics import (
    Autoregression,
    Backtest,
    Extension,
    GateThresholds,
    Method,
    Next,
    NextPaper,
    NonFiniteResultError,
    NonFiniteWeightsError,
    Products,
    Trajectory,
    WeightExtrapolation,
    extend,
    extract,
)
from nextrapolate_numerics.errors import RoundedAwayError
from nextrapolate_numerics.extension.writer import config_fields

METHODS: list[Method] = [
    WeightExtrapolation(),
    Autoregression(),
    Next(),
    NextPaper(epochs=30, learning_rate=1e-3),
]
DOWN, FROZEN = "model.layers.0.mlp.down_proj", list(MODULES)[-1]
OPEN = GateThresholds(0.0, -1.0)


def extended(
    run: Path,
    out: Path,
    method: Method = METHODS[0],
    *,
    alpha: float = 1.5,
    gate: GateThresholds = OPEN,
    backtest: Backtest | None = None,
    rank: Literal["same", "grow"] = "same",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> tuple[Extension, dict[str, Tensor]]:
    """The extension, and what last + alpha times the update is as dense matrices."""
    trajectory = Trajectory.open(checkpoints(run))
    extraction = extract(trajectory, method, 30)
    update = method.fit(extraction, 30)
    out.mkdir(exist_ok=True)
    extension = extend(
        extraction, update, alpha=alpha, gate=gate, backtest=backtest, rank=rank, dtype=dtype, folder=out
    )
    wanted = dense_deltas(checkpoints(run)[-1])
    for name in update.modules():
        low_rank = update.delta(name, trajectory)
        wanted[name] = wanted[name] + alpha * low_rank.B @ low_rank.A
    return extension, wanted


def written(out: Path) -> dict[str, Tensor]:
    return dense_deltas(adapter_files(out, 0))


def with_cosine(cosine: float) -> Backtest:
    """A backtest of one module whose update and true one have length 1."""
    one = torch.ones(1, 1, dtype=torch.float64)
    return Backtest(90, 120, (DOWN,), Products(one, cosine * one, one[0]), (), seconds=0.0)


@pytest.mark.parametrize("method", METHODS)
def test_grown_adapters_are_exact(method: Method, run_folder: Path, tmp_path: Path) -> None:
    extension, wanted = extended(run_folder, tmp_path / "out", method, rank="grow")
    for name, delta in written(tmp_path / "out").items():
        assert float((delta - wanted[name]).norm()) <= 1e-5 * max(float(wanted[name].norm()), 1e-9)
    assert extension.discarded_energy < 1e-10
    rank = json.loads(extension.config.read_text())["r"]
    assert rank > RANK
    if isinstance(method, NextPaper):
        assert rank == RANK + 1


@pytest.mark.parametrize("method", METHODS)
def test_adapters_of_the_same_rank_differ_by_the_discarded_energy(
    method: Method, run_folder: Path, tmp_path: Path
) -> None:
    extension, wanted = extended(run_folder, tmp_path / "out", method)
    result = written(tmp_path / "out")
    for record in extension.modules:
        error = float((result[record.name] - wanted[record.name]).norm() ** 2)
        energy = float(wanted[record.name].norm() ** 2)
        assert error == pytest.approx(record.discarded_energy * energy, rel=1e-3, abs=1e-10 * energy)
    error = float((flat(result) - flat(wanted)).norm() ** 2 / flat(wanted).norm() ** 2)
    assert error == pytest.approx(extension.discarded_energy, rel=1e-3)
    assert json.loads(extension.config.read_text()) == json.loads(
        checkpoints(run_folder)[-1].config.read_text()
    )


def test_the_total_is_of_what_was_wanted_and_not_of_what_is_left(tmp_path: Path) -> None:
    """One module is cut to a part of what it was to be, the other not at all."""
    generator = torch.Generator().manual_seed(0)
    for step in (10, 20, 30):
        tensors = {}
        for name, straight in (("cut", False), ("whole", True)):
            shape = (24, 2), (2, 24)
            B, A = (
                torch.ones(size) if straight else torch.randn(size, generator=generator) for size in shape
            )
            tensors[f"base_model.model.{name}.q_proj.lora_B.weight"] = step / 30 * B
            tensors[f"base_model.model.{name}.q_proj.lora_A.weight"] = A
        write_adapter(tmp_path / "run" / f"checkpoint-{step}", tensors, rank=2)
    method = WeightExtrapolation(window_steps=10)
    extension, wanted = extended(tmp_path / "run", tmp_path / "out", method, alpha=1.0)
    shares = {record.name: record.discarded_energy for record in extension.modules}
    assert shares["cut.q_proj"] > 0.1 > 1e-6 > shares["whole.q_proj"]
    error = float((flat(written(tmp_path / "out")) - flat(wanted)).norm() ** 2 / flat(wanted).norm() ** 2)
    assert extension.discarded_energy == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("method", [METHODS[0], METHODS[-1]])
def test_records_say_what_was_measured_and_done(method: Method, run_folder: Path, tmp_path: Path) -> None:
    extension, wanted = extended(run_folder, tmp_path / "out", method, backtest=with_cosine(0.25))
    last = dense_deltas(checkpoints(run_folder)[-1])
    assert [record.name for record in extension.modules] == sorted(MODULES)
    for record in extension.modules:
        assert record.shape == MODULES[record.name]
        assert record.moved is (record.name != FROZEN)
        assert record.gated is None
        assert record.drift_norm == pytest.approx(float(last[record.name].norm()), rel=1e-5)
        change = wanted[record.name] - last[record.name]
        assert record.update_norm == pytest.approx(float(change.norm()), rel=1e-5)
        assert record.reached_norm == pytest.approx(float(wanted[record.name].norm()), rel=1e-5)
        assert record.backtest_cosine == (0.25 if record.name == DOWN else None)
        assert (record.gauge_condition is None) is (record.name == FROZEN)


@pytest.mark.parametrize("rank", ["same", "grow"])
def test_the_spectrum_is_that_of_the_dense_matrices(
    rank: Literal["same", "grow"], run_folder: Path, tmp_path: Path
) -> None:
    extension, wanted = extended(run_folder, tmp_path / "out", rank=rank)
    assert extension.spectrum is not None
    for found, deltas in (
        (extension.spectrum.wanted, wanted),
        (extension.spectrum.kept, written(tmp_path / "out")),
    ):
        values = [torch.linalg.svdvals(deltas[name]) for name in deltas if name != FROZEN]
        count = max(len(found), *map(len, values))
        rows = torch.stack([torch.nn.functional.pad(row, (0, count - len(row))) for row in values])
        expected = rows.square().mean(dim=0).sqrt()[: len(found)]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected[0]))


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        (GateThresholds(0.0, 0.3), "backtest cosine 0.250 is below 0.3"),
        (GateThresholds(1.0, -1.0), "energy ratio"),
    ],
)
@pytest.mark.parametrize("rank", ["same", "grow"])
def test_gated_and_still_modules_keep_the_last_checkpoint(
    gate: GateThresholds, reason: str, rank: Literal["same", "grow"], run_folder: Path, tmp_path: Path
) -> None:
    extension, _ = extended(run_folder, tmp_path / "out", gate=gate, backtest=with_cosine(0.25), rank=rank)
    records = {record.name: record for record in extension.modules}
    assert reason in (records[DOWN].gated or "")
    assert records[DOWN].update_norm == 0
    last, result = load_file(checkpoints(run_folder)[-1].model), load_file(extension.model)
    for name in (DOWN, FROZEN):
        B, A = (f"base_model.model.{name}.lora_{factor}.weight" for factor in "BA")
        assert torch.equal(result[B][:, :RANK], last[B])
        assert torch.equal(result[A][:RANK], last[A])
        assert not result[B][:, RANK:].any()
    assert records[FROZEN].gated is None


def test_if_every_module_is_gated_it_says_so(run_folder: Path, tmp_path: Path) -> None:
    extension, _ = extended(run_folder, tmp_path / "out", gate=GateThresholds(1.0, -1.0), rank="grow")
    assert any("Every module was gated" in warning for warning in extension.warnings)
    last = checkpoints(run_folder)[-1]
    for key, tensor in load_file(last.model).items():
        assert torch.equal(load_file(extension.model)[key], tensor)
    assert json.loads(extension.config.read_text()) == json.loads(last.config.read_text())


def test_the_last_checkpoint_may_be_written_over(run_folder: Path, tmp_path: Path) -> None:
    run, gate = shutil.copytree(run_folder, tmp_path / "copy"), GateThresholds(1.0, -1.0)
    last = checkpoints(run)[-1].model
    before = load_file(checkpoints(run_folder)[-1].model)
    extended(run, last.parent, gate=gate)
    assert all(torch.equal(tensor, before[key]) for key, tensor in load_file(last).items())


def test_checkpoints_may_be_deleted_once_they_are_open(run_folder: Path, tmp_path: Path) -> None:
    run, method = shutil.copytree(run_folder, tmp_path / "copy"), Next()
    expected, _ = extended(run_folder, tmp_path / "expected", method)
    trajectory = Trajectory.open(checkpoints(run))
    shutil.rmtree(run)
    extraction = extract(trajectory, method, 30)
    update = method.fit(extraction, 30)
    (tmp_path / "out").mkdir()
    found = extend(extraction, update, alpha=1.5, gate=OPEN, backtest=None, folder=tmp_path / "out")
    assert found.model.read_bytes() == expected.model.read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_same_inputs_same_bytes(method: Method, run_folder: Path, tmp_path: Path) -> None:
    first, second = (extended(run_folder, tmp_path / name, method)[0] for name in ("a", "b"))
    assert first.model.read_bytes() == second.model.read_bytes()
    assert first.config.read_bytes() == second.config.read_bytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes(dtype: Literal["bfloat16", "float16"], run_folder: Path, tmp_path: Path) -> None:
    extension, wanted = extended(run_folder, tmp_path / "out", dtype=dtype)
    tensors = load_file(extension.model)
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}
    result = flat(written(tmp_path / "out"))
    assert float((result - flat(wanted)).norm() / flat(wanted).norm()) < 0.02


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("alpha", [1.5, 0.03])
def test_what_rounding_costs_is_told(
    dtype: Literal["bfloat16", "float16"], alpha: float, run_folder: Path, tmp_path: Path
) -> None:
    unrounded, _ = extended(run_folder, tmp_path / "single", alpha=alpha)
    extension, _ = extended(run_folder, tmp_path / "out", alpha=alpha, dtype=dtype)
    last, single, rounded = (
        dense_deltas(adapter_files(folder, 0))
        for folder in (run_folder / "checkpoint-120", tmp_path / "single", tmp_path / "out")
    )
    updated = [module.name for module in extension.modules if module.update_norm]
    one, other, before = (flat({name: each[name] for name in updated}) for each in (single, rounded, last))
    lost = float((one - other).norm() / (one - before).norm())
    assert extension.rounding == pytest.approx(lost, rel=1e-2)
    assert unrounded.rounding == 0
    told = [warning for warning in extension.warnings if warning.startswith(f"Rounding to {dtype} changes")]
    assert len(told) == (lost > 0.05)


def test_an_update_that_rounding_would_leave_little_of_is_refused(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RoundedAwayError, match=r"Rounding to bfloat16 .* Ask for float32"):
        extended(run_folder, tmp_path / "out", alpha=1e-4, dtype="bfloat16")
    assert not list((tmp_path / "out").iterdir())


def test_a_module_that_rested_in_the_backtest_is_not_moved_unless_the_gate_is_off(
    run_folder: Path, tmp_path: Path
) -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    at_rest = Backtest(90, 120, (DOWN,), Products(one, 0 * one, 0 * one[0]), (), seconds=0.0)
    for least, gated in (
        (0.0, "it did not move in the backtest, but the method would have moved it"),
        (-1.0, None),
    ):
        gate = GateThresholds(0.0, least)
        extension, _ = extended(run_folder, tmp_path / f"{least}", gate=gate, backtest=at_rest)
        (record,) = [module for module in extension.modules if module.name == DOWN]
        assert record.gated == gated
        assert (record.update_norm > 0) is (gated is None)


@pytest.mark.parametrize(("target", "told"), [(120, False), (160, False), (161, True), (104, True)])
def test_a_backtest_that_was_asked_otherwise_is_told(
    target: int, told: bool, run_folder: Path, tmp_path: Path
) -> None:
    """The jump goes 30 steps."""
    one = torch.ones(1, 1, dtype=torch.float64)
    scores = Backtest(
        100 if target == 160 else 90, target, (DOWN,), Products(one, one, one[0]), (), seconds=0.0
    )
    extension, _ = extended(run_folder, tmp_path / "out", backtest=scores)
    assert any(warning.startswith("The backtest predicted ") for warning in extension.warnings) is told


def test_numbers_that_are_none_beside_the_factors_are_refused(run_folder: Path, tmp_path: Path) -> None:
    last = checkpoints(run_folder)[-1]
    head = {"base_model.model.lm_head.weight": torch.full((5,), torch.nan)}
    save_file(load_file(last.model) | head, last.model)
    with pytest.raises(NonFiniteWeightsError, match="lm_head"):
        extended(run_folder, tmp_path / "out")


def test_overflow_is_answered_with_what_to_do(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteResultError, match="overflows float16"):
        extended(run_folder, tmp_path / "out", alpha=1e8, dtype="float16")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.bool])
def test_other_tensors_keep_their_last_value(run_folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    last = checkpoints(run_folder)[-1]
    head = {"base_model.model.lm_head.weight": torch.arange(5).to(dtype)}
    save_file(load_file(last.model) | head, last.model)
    extension, _ = extended(run_folder, tmp_path / "out")
    found = load_file(extension.model)["base_model.model.lm_head.weight"]
    assert found.dtype is dtype
    assert found.tolist() == torch.arange(5).to(dtype).tolist()
    assert any("lm_head" in warning for warning in extension.warnings)


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("patterns", [{}, {"alpha_pattern": {"q_proj": 3}}])
def test_growing_keeps_every_scaling(
    use_rslora: bool, patterns: dict[str, Any], run_folder: Path, tmp_path: Path
) -> None:
    for files in checkpoints(run_folder):
        fields = json.loads(files.config.read_text()) | {"use_rslora": use_rslora} | patterns
        files.config.write_text(json.dumps(fields))
    extended(run_folder, tmp_path / "out", rank="grow")
    out = adapter_files(tmp_path / "out", 0)
    before = Trajectory.open(checkpoints(run_folder)).config
    after = Trajectory.open([out, adapter_files(tmp_path / "out", 1)]).config
    for name in MODULES:
        assert after.scaling(name) == pytest.approx(before.scaling(name), rel=1e-12)


def test_patterns_keep_their_order(run_folder: Path, tmp_path: Path) -> None:
    """PEFT takes the first that matches."""
    first = next(iter(MODULES))
    patterns = {first: 64, f".*{first.rpartition('.')[2]}": 2}
    assert list(patterns) != sorted(patterns)
    for files in checkpoints(run_folder):
        fields = json.loads(files.config.read_text()) | {"alpha_pattern": patterns}
        files.config.write_text(json.dumps(fields))
    extended(run_folder, tmp_path / "out")
    made = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert list(made["alpha_pattern"].items()) == list(patterns.items())
    assert config_fields(
        Trajectory.open(checkpoints(run_folder)).config, {"q_proj": 9, f"a.{first}": 8, first: 8}
    )["rank_pattern"] == {f"a.{first}": 8, first: 8, "q_proj": 9}


def test_progress_ends_at_one(run_folder: Path, tmp_path: Path) -> None:
    seen: list[float] = []
    extraction = extract(Trajectory.open(checkpoints(run_folder)), METHODS[0], 30)
    update = METHODS[0].fit(extraction, 30)
    extend(extraction, update, alpha=1, gate=OPEN, backtest=None, folder=tmp_path, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
