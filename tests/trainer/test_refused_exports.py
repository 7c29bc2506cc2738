"""What cannot be exported: a checkpoint that verl is still saving, or none. It needs no verl to be told."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nextrapolate_trainer.errors import ExportError
from nextrapolate_trainer.verl_export import app, export


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_part_that_is_half_written_is_waited_for(tmp_path: Path, share: float) -> None:
    actor = tmp_path / "run" / "global_step_10" / "actor"
    actor.mkdir(parents=True)
    (actor / "fsdp_config.json").write_text(json.dumps({"world_size": 1}))
    part = actor / "model_world_size_1_rank_0.pt"
    torch.save({f"layers.{number}.weight": torch.zeros(1000) for number in range(20)}, part)
    content = part.read_bytes()
    part.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ExportError, match="wait until the run has saved it"):
        export(tmp_path / "run", tmp_path / "out")


def test_a_part_that_is_damaged_is_named(tmp_path: Path) -> None:
    actor = tmp_path / "run" / "global_step_10" / "actor"
    actor.mkdir(parents=True)
    (actor / "fsdp_config.json").write_text(json.dumps({"world_size": 1}))
    part = actor / "model_world_size_1_rank_0.pt"
    torch.save({"layers.0.weight": torch.zeros(1000)}, part)
    content = part.read_bytes()
    part.write_bytes(content.replace(b"ctorch._utils", b"\xff" * 13))
    with pytest.raises(ExportError, match="global_step_10/actor is not a complete FSDP checkpoint"):
        export(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none", "out"], "none cannot be read (No such file or directory): give the run's trainer."),
        (["file", "out"], "file cannot be read (Not a directory): give the run's trainer."),
        (
            ["run", "out", "--adapter-config", "run"],
            "there is no file run: give the adapter_config.json itself",
        ),
        (["run", "file"], "file/.global_step_10.partial cannot be written (Not a directory)"),
    ],
)
def test_what_cannot_be_read_or_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    actor = Path("run/global_step_10/actor")
    actor.mkdir(parents=True)
    (actor / "fsdp_config.json").write_text(json.dumps({"world_size": 1}))
    name = "base_model.model.layers.0.q_proj.lora_{}.default.weight"
    factors = {name.format("A"): torch.zeros(2, 4), name.format("B"): torch.zeros(4, 2)}
    torch.save(factors, actor / "model_world_size_1_rank_0.pt")
    failed = CliRunner().invoke(app, arguments)
    assert failed.exit_code == 2
    assert said in failed.stderr
