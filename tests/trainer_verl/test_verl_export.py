"""Adapters out of verl's own checkpoints, as PEFT loads them, and back into a new run of verl."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from fixtures.verl_run import MakeTrainer, adapters, same
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

from nextrapolate.errors import CheckpointError
from nextrapolate.schemas import JumpInfo
from nextrapolate.sources import LocalRun, resolve
from nextrapolate_trainer.errors import ExportError
from nextrapolate_trainer.peft_model import read_adapter
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.verl_export import app, export

pytestmark = pytest.mark.integration

UNTOUCHED = "trainer.checkpoint_callback_class=null"
LORA_ONLY = "+actor_rollout_ref.actor.checkpoint.save_lora_only=True"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def checkpoints(run: Path, make_trainer: MakeTrainer) -> Path:
    """A run of two steps, with its adapter as each step left it."""
    if not (run / "global_step_2").exists():
        trainer = make_trainer(run, UNTOUCHED)
        for step in (1, 2):
            trainer.train(until=step)
            torch.save(adapters(trainer.actor_rollout_wg)[0], run / f"adapter-{step}.pt")
    return run


def test_an_adapter_is_exported_to_the_bit_and_loads(
    checkpoints: Path, base_model: Path, tmp_path: Path
) -> None:
    folders = export(checkpoints, tmp_path / "out")
    assert [folder.name for folder in folders] == ["global_step_1", "global_step_2"]
    for step, folder in enumerate(folders, start=1):
        expected = torch.load(checkpoints / f"adapter-{step}.pt")
        assert same(load_file(folder / "adapter_model.safetensors"), expected)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_model), folders[1])
    assert same(read_adapter(model), expected)
    config = json.loads((folders[1] / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert sorted(config["target_modules"]) == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip


def test_an_export_follows_a_run(checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoints / "global_step_1", tmp_path / "run" / "global_step_1")
    assert len(export(tmp_path / "run", tmp_path / "out")) == 1
    shutil.copytree(checkpoints / "global_step_2", tmp_path / "run" / "global_step_2")
    assert [folder.name for folder in export(tmp_path / "run", tmp_path / "out")] == ["global_step_2"]


def test_the_command_prints_what_it_wrote_or_what_is_wrong(checkpoints: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "nextrapolate_trainer.verl_export"]
    done = subprocess.run(
        [*program, str(checkpoints), str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "(--adapter-config)" in done.stderr, "what verl does not save may matter"
    assert done.stdout.split() == [str(tmp_path / "out" / f"global_step_{step}") for step in (1, 2)]
    (tmp_path / "empty").mkdir()
    failed = CliRunner().invoke(app, [str(tmp_path / "empty"), str(tmp_path / "out")])
    assert failed.exit_code == 2
    assert "give the run's trainer.default_local_dir" in failed.stderr


def test_a_checkpoint_without_all_of_its_parts_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoints / "global_step_1", tmp_path / "run" / "global_step_1")
    (tmp_path / "run" / "global_step_1" / "actor" / "model_world_size_2_rank_1.pt").unlink()
    with pytest.raises(ExportError, match="bring all of their files together"):
        export(tmp_path / "run", tmp_path / "out")
    assert list((tmp_path / "out").glob("global_step_*")) == []


def test_ranks_of_single_modules_need_the_config_that_the_run_began_from(
    checkpoints: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoints / "global_step_1", tmp_path / "run" / "global_step_1")
    meta = tmp_path / "run" / "global_step_1" / "actor" / "lora_train_meta.json"
    meta.write_text(meta.read_text().replace('"r": 4', '"r": 8'))
    with pytest.raises(ExportError, match="has rank 4, the run 8"):
        export(tmp_path / "run", tmp_path / "out")
    config = tmp_path / "adapter_config.json"
    config.write_text("{}")
    [folder] = export(tmp_path / "run", tmp_path / "out", config)
    assert (folder / "adapter_config.json").read_text() == "{}"


def test_modules_that_share_a_name_with_others_are_named_in_full(checkpoints: Path, tmp_path: Path) -> None:
    actor = tmp_path / "run" / "global_step_1" / "actor"
    shutil.copytree(checkpoints / "global_step_1", actor.parent)
    module = "layers.1.mlp.down_proj"
    for part in actor.glob("model_*"):
        state = {name: t for name, t in torch.load(part).items() if f"{module}.lora_" not in name}
        torch.save({name.replace(f"{module}.base_layer", module): t for name, t in state.items()}, part)
    [folder] = export(tmp_path / "run", tmp_path / "out")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert "model.layers.0.mlp.down_proj" in config["target_modules"]
    assert "model.layers.1.mlp.down_proj" not in config["target_modules"]


class Saved(Protocol):
    """Saves an adapter of a configuration of its own with all else that verl saves, as one process would."""

    def __call__(self, *, lora_only: bool = False, **options: Any) -> tuple[PeftModel, Path]: ...


@pytest.fixture
def saved(base_model: Path, tmp_path: Path) -> Saved:
    def save(*, lora_only: bool = False, **options: Any) -> tuple[PeftModel, Path]:
        torch.manual_seed(0)
        lora = LoraConfig(r=16, lora_alpha=32, task_type="CAUSAL_LM", init_lora_weights=False, **options)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base_model), lora)
        actor = tmp_path / "run" / "global_step_10" / "actor"
        actor.mkdir(parents=True)
        state = {name: t for name, t in model.state_dict().items() if not lora_only or "lora_" in name}
        torch.save(state, actor / "model_world_size_1_rank_0.pt")
        (actor / "fsdp_config.json").write_text('{"FSDP_version": 2, "world_size": 1}')
        TheOnlyProcess()._save_lora_train_meta(str(actor), model)
        return model, tmp_path / "run"

    return save


class TheOnlyProcess(FSDPCheckpointManager):  # type: ignore[misc] # verl ships no types
    def __init__(self) -> None:
        self.rank = 0


def deltas(model: PeftModel) -> dict[str, torch.Tensor]:
    """What the adapter adds to each module that it adapts."""
    return {
        name: module.get_delta_weight("default")
        for name, module in model.named_modules()
        if isinstance(module, Linear)
    }


def loaded(base_model: Path, adapter: Path) -> PeftModel:
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_model), adapter)


@pytest.mark.parametrize("options", [{"use_rslora": True}, {"alpha_pattern": {"q_proj": 128}}])
def test_what_verl_does_not_save_is_warned_of_and_taken_from_the_config_that_the_run_began_from(
    options: dict[str, Any],
    saved: Saved,
    base_model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, checkpoints = saved(target_modules=["q_proj", "v_proj"], **options)
    export(checkpoints, tmp_path / "guessed")
    assert "neither use_rslora nor alpha_pattern" in caplog.text
    caplog.clear()
    model.save_pretrained(str(tmp_path / "began"))
    [folder] = export(checkpoints, tmp_path / "out", tmp_path / "began" / "adapter_config.json")
    assert caplog.text == ""
    assert same(deltas(loaded(base_model, folder)), deltas(model))


def test_an_export_that_has_nothing_to_do_warns_of_nothing(
    saved: Saved, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, checkpoints = saved(target_modules=["q_proj"])
    export(checkpoints, tmp_path / "out")
    caplog.clear()
    assert export(checkpoints, tmp_path / "out") == []
    assert caplog.text == ""


def test_what_is_exported_of_a_run_that_has_jumped_is_not_taken_for_training(
    saved: Saved, tmp_path: Path
) -> None:
    _, checkpoints = saved(target_modules=["q_proj"])
    steps = (10, 20, 30)
    folders = [checkpoints / f"global_step_{step}" for step in steps]
    for folder in folders[1:]:
        shutil.copytree(folders[0], folder)
    for step, folder in zip(steps, folders, strict=True):
        jumps = (JumpInfo(step=30, job="j"),) if step == 30 else ()
        RunState(step=step, series="s", jumps=jumps).write(folder)
    export(checkpoints, tmp_path / "out")
    with pytest.raises(CheckpointError, match="has jumped after step 30"):
        resolve(tmp_path / "out", until=None)
    assert isinstance(resolve(tmp_path / "out", until=20), LocalRun)


@pytest.mark.parametrize("lora_only", [True, False])
def test_modules_that_were_not_adapted_are_not_in_the_export(
    lora_only: bool, saved: Saved, base_model: Path, tmp_path: Path
) -> None:
    model, checkpoints = saved(
        lora_only=lora_only, target_modules=["q_proj", "v_proj"], layers_to_transform=[0]
    )
    [folder] = export(checkpoints, tmp_path / "out")
    assert same(deltas(loaded(base_model, folder)), deltas(model))


def test_a_checkpoint_without_rank_and_alpha_is_refused(saved: Saved, tmp_path: Path) -> None:
    model, checkpoints = saved(target_modules=["q_proj"])
    (checkpoints / "global_step_10" / "actor" / "lora_train_meta.json").unlink()
    with pytest.raises(ExportError, match="with which rank and alpha"):
        export(checkpoints, tmp_path / "out")
    model.save_pretrained(str(tmp_path / "began"))
    assert len(export(checkpoints, tmp_path / "out", tmp_path / "began" / "adapter_config.json")) == 1


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}, {"modules_to_save": ["norm"]}])
def test_what_was_trained_beside_the_factors_is_not_left_out_unsaid(
    options: dict[str, Any], saved: Saved, tmp_path: Path
) -> None:
    _, checkpoints = saved(target_modules=["q_proj"], **options)
    with pytest.raises(ExportError, match="only LoRA's factors A and B can be exported"):
        export(checkpoints, tmp_path / "out")
