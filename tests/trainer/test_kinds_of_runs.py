"""GRPO and RLOO, with the options that change what a step is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.grpo import MakeTrainer, tiny_rloo_trainer
from fixtures.server import EmbeddedServer
from torch import Tensor
from transformers import TrainerCallback

from nextrapolate import Gate, NExtClient
from nextrapolate_trainer.adapter import copied
from nextrapolate_trainer.peft_model import read_adapter
from nextrapolate_trainer.trl import NExtCallback
from nextrapolate_trainer.trl_internals import Trainer

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]

OPTIONS: dict[str, dict[str, Any]] = {
    "gradient accumulation": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 8},
    "two iterations": {"num_iterations": 2},
    "beta": {"beta": 0.1},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "generation every 3 steps": {"steps_per_generation": 3},
}


class Spy(TrainerCallback):
    """Sees the adapter that the step after a jump begins with, and how often completions are generated."""

    def __init__(self, trainer: Trainer) -> None:
        self.begun: dict[int, dict[str, Tensor]] = {}
        self.generated_at: list[int] = []
        generate = trainer._generate_and_score_completions

        def noted(inputs: Any) -> Any:
            self.generated_at.append(trainer.state.global_step)
            return generate(inputs)

        trainer._generate_and_score_completions = noted  # type: ignore[method-assign]

    def on_step_begin(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        self.begun[state.global_step] = copied(read_adapter(event["model"]))


def jumps(trainer: Trainer, embedded_server: EmbeddedServer) -> Spy:
    """Train 5 steps with a jump after 4, and check what has to hold of every kind of run."""
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        plugin = NExtCallback(
            client,
            collect_every=2,
            jump_at=4,
            horizon_steps=2,
            method="weight-extrapolation",
            gate=Gate(min_backtest_cosine=-1),
        ).attach(trainer)
        spy = Spy(trainer)
        trainer.add_callback(spy)
        trainer.train()
    [jump] = plugin.jumps
    assert jump.reset_modules == 0
    assert 4 in spy.generated_at, "the first step after a jump samples from the new policy"
    assert [
        entry["next/pause_seconds"] for entry in trainer.state.log_history if "next/pause_seconds" in entry
    ]
    return spy


@pytest.mark.parametrize("kind", OPTIONS)
def test_grpo(kind: str, make_trainer: MakeTrainer, embedded_server: EmbeddedServer) -> None:
    trainer = make_trainer(max_steps=5, **OPTIONS[kind])
    jumps(trainer, embedded_server)
    if kind == "beta":
        kl = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
        assert kl[-1] > kl[-2], "the reference stays the base model: the jump leads away from it"


@pytest.mark.parametrize("kind", ["two iterations", "beta"])
def test_rloo(
    kind: str, tmp_path: Path, embedded_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    trainer = tiny_rloo_trainer(tmp_path / "rloo", max_steps=5, **OPTIONS[kind])
    spy = jumps(trainer, embedded_server)
    assert any(not torch.equal(spy.begun[4][name], spy.begun[3][name]) for name in spy.begun[4])
