"""A checkpoint that verl is still saving, which needs no verl to be told from a whole one."""

import json
from pathlib import Path

import pytest
import torch

from nextrapolate_trainer.errors import ExportError
from nextrapolate_trainer.verl_export import export


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
    with pytest.raises(ExportError, match="global_step_10/actor is no whole FSDP checkpoint"):
        export(tmp_path / "run", tmp_path / "out")
