"""What a new series of a run says of where training began, from which the drift is measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.grpo import MakeTrainer
from fixtures.scripted_job import script_series
from fixtures.scripted_server import ScriptedServer
from fixtures.server import EmbeddedServer

from nextrapolate import Gate, NExtClient
from nextrapolate_trainer.adapter import Adapter
from nextrapolate_trainer.series import Run, RunSeries
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.trl import NExtCallback
from nextrapolate_trainer.trl_internals import Trainer

CONFIG = {
    "peft_type": "LORA",
    "r": 1,
    "lora_alpha": 1,
    "target_modules": ["q_proj"],
    "init_lora_weights": True,
}
START: Adapter = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(1, 4),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": torch.ones(4, 1),
}


def moved(step: int) -> Adapter:
    return {name: tensor + step for name, tensor in START.items()}


@pytest.mark.integration
def test_a_series_in_place_of_a_lost_one_begins_where_the_run_did(embedded_server: EmbeddedServer) -> None:
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        series = RunSeries(client, Run("lost", None, CONFIG, START), None)
        series.post(500, moved(500))
        client.delete_series(str(series.id))
        series.post(510, moved(510))
        series.post(520, moved(520))
        assert [info.step for info in client.get_series(str(series.id)).checkpoints] == [0, 510, 520]


@pytest.mark.integration
def test_a_resume_puts_no_start_before_what_goes_on_without(embedded_server: EmbeddedServer) -> None:
    """A trainer reads it again; in a series that was begun anew after a jump it would be false drift."""
    run = Run("jumped", None, CONFIG, START)
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        series = RunSeries(client, run, None)
        series.post(2, moved(2))
        series.add_jump(2, "01ARZ3NDEKTSV4RRFFQ69G5FAV")
        client.delete_series(str(series.id))
        series.post(4, moved(4))
        state = RunState(step=4, series=series.id, from_base=series.from_base, jumps=series.jumps)
        resumed = RunSeries(client, run, state)
        resumed.post(6, moved(6))
        assert resumed.id == series.id
        assert [info.step for info in client.get_series(str(series.id)).checkpoints] == [4, 6]


@pytest.mark.parametrize(
    ("run", "resumed", "says"),
    [
        (Run("anew", None, CONFIG), None, True),
        (Run("met on its way", None, CONFIG, from_start=False), None, False),
        (Run("resumed", None, CONFIG, from_start=False), RunState(step=8, series=None), True),
        (Run("resumed", None, CONFIG), RunState(step=8, series=None, from_base=False), False),
    ],
)
def test_a_run_that_may_have_begun_elsewhere_does_not_say_at_the_base(
    run: Run, resumed: RunState | None, says: bool, scripted: ScriptedServer
) -> None:
    script_series(scripted, 10)
    with NExtClient(scripted.url) as client:
        series = RunSeries(client, run, resumed)
        series.post(10, moved(10))
    [created] = [received for received in scripted.received if received.path == "/series"]
    assert json.loads(created.body)["lora_config"]["init_lora_weights"] is says
    assert series.from_base is says


@pytest.mark.parametrize(
    ("init", "says"),
    [
        (True, False),
        (False, False),
        ("gaussian", False),
        ("orthogonal", False),
        ("eva", False),
        *((init, init) for init in ("pissa", "pissa_niter_16", "olora", "loftq", "corda")),
    ],
)
def test_an_init_that_takes_its_factors_out_of_the_base_stays_for_the_service_to_refuse(
    init: bool | str, says: bool | str, scripted: ScriptedServer
) -> None:
    script_series(scripted, 10)
    config = CONFIG | {"init_lora_weights": init}
    with NExtClient(scripted.url) as client:
        RunSeries(client, Run("met on its way", None, config, from_start=False), None).post(10, moved(10))
        RunSeries(client, Run("trained before", None, config, moved(0)), None).begin()
    created = [json.loads(received.body) for received in scripted.received if received.path == "/series"]
    assert [series["lora_config"]["init_lora_weights"] for series in created] == [says, says]


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_update_is_held_against_what_the_run_itself_has_moved(
    make_trainer: MakeTrainer, embedded_server: EmbeddedServer, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"max_steps": 5, "save_steps": 5}
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        plugin = NExtCallback(
            client,
            collect_every=2,
            jump_at=4,
            horizon_steps=2,
            method="weight-extrapolation",
            window_steps=4,
            gate=Gate(min_backtest_cosine=-1),
        ).attach(trained_before(make_trainer(**options)))
        assert plugin._trainer is not None
        plugin._trainer.train()
    [jump] = plugin.jumps
    assert jump.update_ratio == pytest.approx(0.5, rel=0.01), "2 steps ahead at the speed of the first 4"
    assert not RunState.read(tmp_path / "run" / "checkpoint-5").from_base


def trained_before(trainer: Trainer) -> Trainer:
    """Have the trainer begin with an adapter that is long against what it will move."""
    assert trainer.model is not None
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.5)
    return trainer
