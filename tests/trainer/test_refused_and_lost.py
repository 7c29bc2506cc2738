"""Runs, and keys, that the service takes no checkpoint of, and runs whose series it loses on the way."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.grpo import MakeTrainer, tiny_parts
from fixtures.server import EmbeddedServer
from trl.trainer.grpo_trainer import GRPOTrainer

from nextrapolate import NExtClient
from nextrapolate.schemas import AutoMethod, JumpInfo, Series
from nextrapolate_trainer.adapter import Adapter
from nextrapolate_trainer.errors import RunRefusedError, UploadError
from nextrapolate_trainer.jumper import Jumper, JumpRequest
from nextrapolate_trainer.series import Run, RunSeries
from nextrapolate_trainer.settings import JumpSettings
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.trl import NExtCallback

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture
def client(embedded_server: EmbeddedServer) -> Iterator[NExtClient]:
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        yield client


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"use_dora": True}, "use_dora=true"),
        ({"bias": "lora_only"}, "bias="),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights="),
    ],
)
def test_a_run_that_cannot_be_served_says_so_once(
    setting: dict[str, Any],
    named: str,
    client: NExtClient,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    parts = tiny_parts(tmp_path / "run", max_steps=7)
    for name, value in setting.items():
        setattr(parts["peft_config"], name, value)
    trainer = GRPOTrainer(**parts)
    plugin = NExtCallback(client, collect_every=1, jump_at=3, jump_every=1, horizon_steps=2).attach(trainer)
    trainer.train()
    assert plugin.jumps == []
    [line] = said(caplog)
    assert line.startswith(
        "nextrapolate takes no further part in this run: the service cannot extrapolate such a run"
    )
    assert named in line


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the plugin has let people know, but for a jump that such short runs do not come to."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "nextrapolate"
        and record.levelno > logging.DEBUG
        and not record.getMessage().startswith("this run ends after step")
    ]


def test_what_is_wrong_is_told_long_before_the_first_checkpoint(
    embedded_server: EmbeddedServer,
    client: NExtClient,
    make_trainer: MakeTrainer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with NExtClient(embedded_server.url, "nx_none_none") as wrong_key:
        trainer = make_trainer(max_steps=1)
        NExtCallback(wrong_key, collect_every=10).attach(trainer)
        trainer.train()
    [line] = said(caplog)
    assert line.startswith("for now, no checkpoint of this run can be posted and no jump made: ")
    assert "NEXTRAPOLATE_API_KEY" in line
    caplog.clear()
    trainer = make_trainer(max_steps=1)
    NExtCallback(client, collect_every=10, name=" ").attach(trainer)
    trainer.train()
    [line] = said(caplog)
    assert line.startswith("nextrapolate takes no further part in this run: ")
    assert "name" in line


def test_lora_on_an_embedding_is_refused_before_the_first_step(
    client: NExtClient, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    parts = tiny_parts(tmp_path / "run", max_steps=2)
    parts["peft_config"].target_modules = ["q_proj", "embed_tokens"]
    trainer = GRPOTrainer(**parts)
    NExtCallback(client, collect_every=10).attach(trainer)
    trainer.train()
    [line] = said(caplog)
    assert line.startswith(
        "nextrapolate takes no part in this run: LoRA on an embedding cannot be extrapolated"
    )


def test_nothing_is_copied_of_a_run_that_was_refused(client: NExtClient) -> None:
    run = Run("refused", None, {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "use_dora": True})
    jumper = Jumper(client, run, JumpSettings())
    with suppress(RunRefusedError):  # it may know already
        jumper.collect(2, adapter(2))
    with pytest.raises(RunRefusedError, match="use_dora"):
        jumper.jumps_from(2, JumpRequest([AutoMethod()]))
    with pytest.raises(RunRefusedError, match="use_dora"):
        jumper.collect(4, adapter(4))
    with pytest.raises(UploadError, match="not of step 4"):
        jumper.own_adapter(4)
    jumper.close()


def test_a_name_that_is_too_long_is_cut(client: NExtClient) -> None:
    series = RunSeries(
        client, Run("sweep " * 100, None, {"peft_type": "LORA", "r": 1, "lora_alpha": 1}), None
    )
    series.begin()
    assert client.get_series(str(series.id)).name == ("sweep " * 100)[:256].strip()


def test_a_run_of_experts_is_told_what_to_train_instead(client: NExtClient) -> None:
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_parameters": ["gate_up_proj"]}
    with pytest.raises(RunRefusedError, match=r'target_parameters=.*"all-linear".*target_modules=\["q_proj"'):
        RunSeries(client, Run("experts", None, config), None).begin()


@pytest.mark.parametrize("start", [None, 1], ids=["from the base", "from an adapter"])
def test_a_series_that_is_lost_on_the_way_is_begun_anew(
    client: NExtClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    start: int | None,
) -> None:
    configs, create = [], client.create_series

    def noting(*args: Any, **options: Any) -> Series:
        configs.append(options["lora_config"])
        return create(*args, **options)

    monkeypatch.setattr(client, "create_series", noting)
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    run = Run("lost on the way", None, config, start=adapter(start) if start else None)
    series = RunSeries(client, run, None)
    series.post(2, adapter(2))
    lost = series.id
    assert lost is not None
    series.add_jump(2, "job")
    client.delete_series(lost)
    series.post(4, adapter(4))
    series.post(6, adapter(6))
    assert series.id not in (None, lost)
    assert [info.step for info in client.get_series(str(series.id)).checkpoints] == [4, 6]
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"without the checkpoints before step 4: there is no series {lost}" in warning
    # what was jumped before the new series' first checkpoint is neither forgotten nor drift
    assert series.jumps == (JumpInfo(step=2, job="job"),)
    assert not series.from_base
    assert configs[-1]["init_lora_weights"] is False
    state = RunState(step=6, series=series.id, from_base=series.from_base, jumps=series.jumps)
    resumed = RunSeries(client, run, state)
    resumed.post(8, adapter(8))
    assert resumed.id == series.id
    assert resumed.jumps == series.jumps
    assert len(caplog.records) == 1


def adapter(value: float) -> Adapter:
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    return {
        f"{name}.lora_A.weight": torch.full((1, 4), float(value)),
        f"{name}.lora_B.weight": torch.ones(4, 1),
    }
