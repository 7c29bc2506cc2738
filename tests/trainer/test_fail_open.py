"""Whatever fails, the run ends as it would have ended without the plugin."""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import DistributedType
from datasets import Dataset
from fixtures.grpo import MakeTrainer, same
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from nextrapolate import NExtClient
from nextrapolate.errors import ParameterError
from nextrapolate_trainer.errors import RankError, UnsupportedRunError
from nextrapolate_trainer.fail_open import fail_open
from nextrapolate_trainer.trl import NExtCallback
from nextrapolate_trainer.trl_run import supported_model

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture
def dead_client() -> Iterator[NExtClient]:
    """A client of an address at which nobody listens, nor can as long as it is bound here."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with NExtClient(f"http://127.0.0.1:{bound.getsockname()[1]}", "nx_none_none") as client:
            yield client


def trained(trainer: GRPOTrainer) -> dict[str, Tensor]:
    """Train, and return a copy of all weights."""
    trainer.train()
    assert trainer.model is not None
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


def test_a_dead_server_changes_nothing(
    make_trainer: MakeTrainer, dead_client: NExtClient, caplog: pytest.LogCaptureFixture
) -> None:
    plain = trained(make_trainer(max_steps=5, name="plain"))
    trainer = make_trainer(max_steps=5, name="with plugin")
    plugin = NExtCallback(dead_client, collect_every=2, jump_at=4, horizon_steps=2).attach(trainer)
    assert same(trained(trainer), plain)
    assert plugin.jumps == []
    messages = [(r.levelno, r.getMessage()) for r in caplog.records if r.name == "nextrapolate"]
    levels, texts = zip(*messages, strict=True)
    assert levels == (logging.WARNING, logging.WARNING, logging.WARNING, logging.ERROR)
    assert texts[0].startswith("for now, no checkpoint of this run can be posted and no jump made: ")
    assert texts[1].startswith("the checkpoint of step 2 did not reach the service: ")
    assert texts[3].startswith("no jump after step 4, training goes on from its own weights: ")


def test_a_run_without_lora_is_left_alone(
    make_trainer: MakeTrainer, dead_client: NExtClient, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(max_steps=2, peft=False)
    NExtCallback(dead_client, collect_every=1, jump_at=1).attach(trainer)
    trainer.train()
    assert [record.getMessage() for record in caplog.records if record.name == "nextrapolate"] == [
        "nextrapolate takes no part in this run: the model has no LoRA adapter: "
        "give the trainer a peft_config=LoraConfig(...)"
    ]


def test_another_trainer_with_the_same_names_is_left_alone(
    make_trainer: MakeTrainer, dead_client: NExtClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grpo: Any = make_trainer(max_steps=1)
    trainer: Any = SFTTrainer(
        model=grpo.model,
        args=SFTConfig(
            output_dir=str(tmp_path / "sft"), max_steps=1, use_cpu=True, bf16=False, report_to="none"
        ),
        train_dataset=Dataset.from_dict({"text": ["12", "34"]}),
        processing_class=grpo.processing_class,
    )
    trainer._buffered_inputs = trainer._logs = None
    NExtCallback(dead_client, collect_every=1, jump_at=1).attach(trainer)
    trainer.train()
    [line] = [record.getMessage() for record in caplog.records if record.name == "nextrapolate"]
    assert line.startswith(
        "nextrapolate takes no part in this run: SFTTrainer is neither GRPOTrainer nor RLOO"
    )


def test_a_run_with_fsdp1_is_left_alone(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(max_steps=2)
    state = trainer.accelerator.state
    state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, SimpleNamespace(fsdp_version=1)
    with pytest.raises(UnsupportedRunError, match="FSDP1 is not supported"):
        supported_model(trainer)


def test_a_run_with_a_schedule_free_optimizer_is_left_alone(make_trainer: MakeTrainer) -> None:
    class ScheduleFree(torch.optim.SGD):
        """Has what schedule-free optimizers have beside others."""

        def train(self) -> None: ...

        def eval(self) -> None: ...

    trainer = make_trainer(max_steps=2)
    model = supported_model(trainer)
    trainer.optimizer = ScheduleFree(model.parameters(), lr=0.1)
    with pytest.raises(UnsupportedRunError, match="a schedule-free optimizer trains weights of its own"):
        supported_model(trainer)


def test_a_callback_that_is_not_attached_says_so(
    make_trainer: MakeTrainer, dead_client: NExtClient, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(max_steps=1)
    trainer.add_callback(NExtCallback(dead_client))
    trainer.train()
    assert "add the callback with .attach(trainer)" in caplog.text


def test_attached_twice_it_takes_part_once(make_trainer: MakeTrainer, dead_client: NExtClient) -> None:
    trainer = make_trainer(max_steps=1)
    plugin = NExtCallback(dead_client)
    assert plugin.attach(trainer) is plugin
    assert plugin.attach(trainer) is plugin
    assert trainer.callback_handler.callbacks.count(plugin) == 1
    with pytest.raises(ValueError, match="the trainer has a NExtCallback already"):
        NExtCallback(dead_client).attach(trainer)
    with pytest.raises(ValueError, match="attached to another trainer already: make one for each trainer"):
        plugin.attach(make_trainer(max_steps=1, name="other"))
    trainer.remove_callback(NExtCallback)
    other = NExtCallback(dead_client).attach(trainer)
    assert other in trainer.callback_handler.callbacks


def test_a_full_disk_is_told_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with fail_open("a run resumed from step 5 will not know its series"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is None
    assert record.getMessage().endswith("will not know its series: [Errno 28] No space left on device")


def test_a_defect_in_the_plugin_is_logged_whole(
    make_trainer: MakeTrainer,
    dead_client: NExtClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = trained(make_trainer(max_steps=2, name="plain"))
    monkeypatch.setattr("nextrapolate_trainer.trl_run.read_adapter", lambda model: 1 / 0)
    trainer = make_trainer(max_steps=2, name="defect")
    NExtCallback(dead_client, collect_every=1, jump_at=1).attach(trainer)
    assert same(trained(trainer), plain)
    assert "the checkpoint of step 1 is not collected" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_wrong_parameter_is_refused_before_training(dead_client: NExtClient) -> None:
    with pytest.raises(ParameterError, match="auto does not take epoch; its parameters are"):
        NExtCallback(dead_client, epoch=10)
    with pytest.raises(ParameterError, match="no method 'nexxt'"):
        NExtCallback(dead_client, method="nexxt")
    assert NExtCallback(dead_client).method.name == "auto"
    assert NExtCallback(dead_client, method="autoregression").method.alpha == 1.0


@pytest.mark.parametrize(("reported", "level"), [(True, logging.DEBUG), (False, logging.ERROR)])
def test_a_failure_elsewhere_is_said_once(
    reported: bool, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "nextrapolate"), fail_open("no jump"):
        raise RankError("process 1: OSError: disk full", reported=reported)
    assert [(line.levelno, line.getMessage()) for line in caplog.records] == [
        (level, "no jump: process 1: OSError: disk full")
    ]
