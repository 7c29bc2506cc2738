"""What the series of a verl run says of where training began, from which the drift is measured."""

import time
from pathlib import Path

import pytest
from fixtures.server import EmbeddedServer
from fixtures.verl_run import MakeConfig, MakeTrainer, Trainer, make_workers
from safetensors.torch import load_file

from nextrapolate import NExtClient
from nextrapolate.schemas import ADAPTER_MODEL
from nextrapolate_trainer.adapter import copied, fingerprint
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.verl import NExtCheckpointCallback
from nextrapolate_trainer.verl_export import export

pytestmark = pytest.mark.integration

JUMPING = ("+nextrapolate.jump_at=4", "+nextrapolate.horizon_steps=3")
NO_PLUGIN = "trainer.checkpoint_callback_class=null"


def steps_of(state: RunState, server: EmbeddedServer) -> dict[int, str]:
    """The sha256 of each checkpoint in the run's series."""
    assert state.series is not None
    with NExtClient(server.url, server.api_key) as client:
        checkpoints = client.get_series(state.series).checkpoints
    return {info.step: info.files[ADAPTER_MODEL].sha256 for info in checkpoints}


def test_a_run_from_a_trained_adapter_begins_its_series_with_it(
    make_trainer: MakeTrainer, make_config: MakeConfig, server: EmbeddedServer, tmp_path: Path
) -> None:
    make_trainer(tmp_path / "sft", NO_PLUGIN).train(until=2)
    export(tmp_path / "sft", tmp_path / "exported")
    adapter = tmp_path / "exported" / "global_step_2"
    config = make_config(
        *JUMPING,
        f"trainer.default_local_dir={tmp_path / 'run'}",
        f"actor_rollout_ref.model.lora_adapter_path={adapter}",
    )
    trainer = Trainer(config, make_workers(config))
    trainer.train(until=4)  # after the jump, which waits for all that was collected
    state = RunState.read(tmp_path / "run" / "global_step_4")
    assert not state.from_base
    steps = steps_of(state, server)
    assert sorted(steps) == [0, 1, 2, 3, 4]
    assert steps[0] == fingerprint(copied(load_file(adapter / ADAPTER_MODEL)))
    [jump] = trainer.checkpoint_callback.jumps
    assert jump.step == 4


def test_a_run_met_on_its_way_does_not_say_that_it_began_at_the_base(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    make_trainer(run, NO_PLUGIN).train(until=2)
    make_trainer(run, *JUMPING).train(until=3)
    assert not RunState.read(run / "global_step_3").from_base


def test_an_adapter_that_the_driver_cannot_read_is_told_and_left_out(
    make_trainer: MakeTrainer, server: EmbeddedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    elsewhere = "actor_rollout_ref.model.lora_adapter_path=/another/node"
    make_trainer(run, *JUMPING, elsewhere).train(until=4)
    assert "does not include the adapter that the run starts from" in caplog.text
    state = RunState.read(run / "global_step_4")
    assert not state.from_base
    assert sorted(steps_of(state, server)) == [1, 2, 3, 4]


def test_a_wrong_key_is_told_before_the_first_save(
    make_trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = make_trainer(tmp_path / "run", *JUMPING).config
    monkeypatch.setenv("NEXTRAPOLATE_API_KEY", "nx_of_another_server")
    NExtCheckpointCallback(config)
    deadline = time.monotonic() + 30
    while "checkpoints cannot be sent to the service: " not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
