"""GRPO and RLOO, with the options that change what a step is."""

import logging
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from fixtures.grpo import MakeTrainer, tiny_parts, tiny_rloo_trainer
from fixtures.server import EmbeddedServer
from torch import Tensor
from transformers import TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer

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
    """Sees the adapter as each step begins with it and leaves it, and how often completions are generated.

    `known` counts the parameters of which the optimizer has moments as a step begins.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.begun: dict[int, dict[str, Tensor]] = {}
        self.ended: dict[int, dict[str, Tensor]] = {}
        self.known: dict[int, int] = {}
        self.generated_at: list[int] = []
        generate = trainer._generate_and_score_completions

        def noted(inputs: Any) -> Any:
            self.generated_at.append(trainer.state.global_step)
            return generate(inputs)

        trainer._generate_and_score_completions = noted  # type: ignore[method-assign]

    def on_step_begin(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        self.begun[state.global_step] = copied(read_adapter(event["model"]))
        self.known[state.global_step] = len(event["optimizer"].state)

    def on_step_end(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        self.ended[state.global_step] = copied(read_adapter(event["model"]))


def jumps(
    trainer: Trainer, embedded_server: EmbeddedServer, optimizer: Literal["keep", "reset"] = "keep"
) -> Spy:
    """Train 5 steps with a jump after 4, and check what has to hold of every kind of run."""
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        plugin = NExtCallback(
            client,
            collect_every=2,
            jump_at=4,
            horizon_steps=2,
            method="weight-extrapolation",
            gate=Gate(min_backtest_cosine=-1),
            optimizer=optimizer,
        ).attach(trainer)
        spy = Spy(trainer)
        trainer.add_callback(spy)
        trainer.train()
    [jump] = plugin.jumps
    assert (jump.reset_modules == 0) == (optimizer == "keep")
    assert 4 in spy.generated_at, "the first step after a jump samples from the new policy"
    assert [
        entry["next/pause_seconds"] for entry in trainer.state.log_history if "next/pause_seconds" in entry
    ]
    return spy


def test_an_adapter_in_16_bits_is_warned_of(
    make_trainer: MakeTrainer, embedded_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """TRL casts it so where the base is quantised."""
    trainer = make_trainer(max_steps=5)
    assert trainer.model is not None
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    jumps(trainer, embedded_server)
    assert "the adapter is trained in 16 bits" in caplog.text
    caplog.clear()
    jumps(make_trainer(max_steps=5, name="float32"), embedded_server)
    assert "16 bits" not in caplog.text


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


@pytest.mark.parametrize(
    "beside", [{"modules_to_save": ["norm"]}, {"trainable_token_indices": {"embed_tokens": [2, 3]}}]
)
def test_what_is_trained_beside_the_factors_stays_as_it_is(
    beside: dict[str, Any],
    tmp_path: Path,
    embedded_server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    caplog.set_level(logging.INFO, logger="nextrapolate")
    parts = tiny_parts(tmp_path / "run", max_steps=5)
    for name, value in beside.items():
        setattr(parts["peft_config"], name, value)
    spy = jumps(GRPOTrainer(**parts), embedded_server, optimizer="reset")
    trained = [name for name in spy.begun[4] if ".lora_" not in name]
    for name in trained:
        assert not torch.equal(spy.ended[4][name], spy.ended[3][name]), "it is trained"
        assert torch.equal(spy.begun[4][name], spy.ended[4][name]), "and a jump leaves it alone"
    assert spy.known[4] == len(trained) > 0, "its moments alone are kept"
    [warning] = [line for line in caplog.messages if "keep their last trained value" in line]
    assert caplog.messages.index(warning) == 0, "as the run begins"
    assert next(iter(beside)) in warning
    assert "\nnote: " in caplog.text
    assert "tensors that are not LoRA factors (modules_to_save or trainable tokens)" in caplog.text
