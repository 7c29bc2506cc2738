from pathlib import Path
from typing import Any

import pytest
from fixtures.grpo import MakeTrainer, tiny_trainer
from trl.trainer.grpo_trainer import GRPOTrainer

from nextrapolate_trainer import jumper


@pytest.fixture
def make_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTrainer:
    """Build trainers, each name in a folder of its own: `make_trainer(name="run", max_steps=6)`."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(jumper, "LAST_UPLOADS_SECONDS", 120.0)  # tests ask for every checkpoint

    def make(*, name: str = "run", peft: bool = True, **options: Any) -> GRPOTrainer:
        return tiny_trainer(tmp_path / name, peft=peft, **options)

    return make
