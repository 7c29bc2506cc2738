"""The run that trains all weights: what it keeps is its matrices' change, and a jump moves those alone."""

from pathlib import Path

import pytest
import torch
from benchmarks.rlvr import without_lora
from benchmarks.rlvr.record import ADAPTER
from benchmarks.rlvr.without_lora import Measured, WholeMatrices, measured, table
from demo.make_base import BASE
from demo.task import ADDITION
from transformers import Qwen2ForCausalLM, TrainerControl, TrainerState, TrainingArguments

from nextrapolate_numerics import AdapterFiles, Trajectory


def test_a_change_is_kept_as_an_adapter_and_a_jump_moves_the_matrices_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(without_lora, "BRANCHES_AT", 20)
    monkeypatch.setattr(without_lora, "HORIZON", 10)
    model = Qwen2ForCausalLM.from_pretrained(BASE)
    base = {name: weight.clone() for name, weight in model.named_parameters()}
    run = WholeMatrices(model, ADDITION, "weight-extrapolation,window_steps=10", tmp_path)
    arguments, control = TrainingArguments(str(tmp_path / "trainer"), use_cpu=True), TrainerControl()
    for step in (10, 20):
        with torch.no_grad():
            for number, weight in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(number)
                weight.add_(1e-3 * torch.randn(weight.shape, generator=generator))
        run.on_step_end(arguments, TrainerState(global_step=step), control)
    trajectory = Trajectory.open(
        [
            AdapterFiles(step, *(tmp_path / f"checkpoint-{step}" / name for name in ADAPTER))
            for step in (10, 20)
        ]
    )
    trained = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for module in trajectory.module_names:
        factors = trajectory.module(module)
        change = trained[f"{module}.weight"] - base[f"{module}.weight"]
        torch.testing.assert_close(factors.scaling * (factors.B[1] @ factors.A[1]), change)
    run.on_step_begin(arguments, TrainerState(global_step=20), control)
    for name, weight in model.named_parameters():
        moves = name.removesuffix(".weight") in trajectory.module_names
        expected = base[name] + (1.5 if moves else 1.0) * (trained[name] - base[name])
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)
    assert len(run.accuracies) == 2


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_run_without_a_jump_is_the_same_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(without_lora, "BRANCHES_AT", 2)
    monkeypatch.setattr(without_lora, "STEPS", 3)
    run = measured(ADDITION, without_lora.NO_JUMP, 1e-4, 0)
    assert run.before == run.after != run.end
    assert "| addition | none |" in table([run])


def test_runs_are_told_beside_the_one_without_a_jump() -> None:
    runs = [
        Measured("sorting", "none", 5e-6, 0, 0.5, 0.5, 0.6),
        Measured("sorting", "next", 5e-6, 0, 0.5, 0.55, 0.625),
    ]
    assert table(runs).endswith("| sorting | next | 0.500 | 0.550 | 0.625 | +0.025 |")
