"""Jumps inside verl: its trainer's own saving and loading, two workers, FSDP2 over gloo."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from fixtures.server import EmbeddedServer
from fixtures.verl_run import (
    MakeTrainer,
    Trainer,
    adapters,
    give_optimizer_back,
    moments,
    same,
    sent_to_the_rollout_engine,
    take_optimizer_from_the_last_rank,
    train_step,
)
from safetensors.torch import load_file
from torch import Tensor
from verl.single_controller.ray import RayWorkerGroup

from nextrapolate import NExtClient
from nextrapolate_trainer.errors import TrainerPluginError
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.verl_export import export
from nextrapolate_trainer.verl_ranks import on_every_rank, write_adapter

pytestmark = pytest.mark.integration

JUMPING = ("+nextrapolate.jump_at=4", "+nextrapolate.horizon_steps=3")
NO_SERVER = ("+nextrapolate.url=http://127.0.0.1:9", "+nextrapolate.timeout=2")


def returned(server: EmbeddedServer, job: str, out: Path) -> dict[str, Tensor]:
    with NExtClient(server.url, server.api_key) as client:
        return load_file(client.download(job, out) / "adapter_model.safetensors")


def saved(checkpoints: Path, step: int, out: Path) -> dict[str, Tensor]:
    """The adapter in one of verl's checkpoints."""
    export(checkpoints, out)
    return load_file(out / f"global_step_{step}" / "adapter_model.safetensors")


def jobs(trainer: Trainer) -> list[str]:
    return [jump.job for jump in trainer.checkpoint_callback.jumps]


def logged(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_rank_jumps_to_what_the_service_returned(
    make_trainer: MakeTrainer, server: EmbeddedServer, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path / "run", *JUMPING, "trainer.total_training_steps=6")
    workers = trainer.actor_rollout_wg
    trainer.train(until=3)
    own = adapters(workers)[0]
    trainer.train(until=4)
    [job] = jobs(trainer)
    result = returned(server, job, tmp_path / "result")
    assert not same(result, own)
    assert [same(adapter, result) for adapter in adapters(workers)] == [True, True]
    assert [same(sent, result) for sent in on_every_rank(workers, sent_to_the_rollout_engine)] == [True, True]
    assert same(saved(tmp_path / "run", 4, tmp_path / "saved"), result), "who resumes from here has jumped"
    assert not (tmp_path / "run" / "global_step_4" / "actor.after-jump").exists()
    trainer.train(until=6)
    one, other = adapters(workers)
    assert same(one, other)
    assert not same(one, result), "training goes on from there"
    state = RunState.read(tmp_path / "run" / "global_step_6")
    assert state.series is not None
    with NExtClient(server.url, server.api_key) as client:
        series = client.get_series(state.series)
    assert [made.job for made in series.jumps] == [job]
    assert [info.step for info in series.checkpoints] == [1, 2, 3, 4, 5, 6], "the last one, too"


def test_a_run_ends_with_the_average_of_its_last_checkpoints(
    make_trainer: MakeTrainer, server: EmbeddedServer, tmp_path: Path
) -> None:
    """The last step is none that is collected, no other jump is made, and none is recommended."""
    trainer = make_trainer(
        tmp_path / "run",
        "+nextrapolate.jump_at=null",
        "+nextrapolate.collect_every=2",
        "+nextrapolate.only_if_recommended=True",
        "+nextrapolate.finish=wsm",
        "trainer.total_training_steps=5",
    )
    trainer.train(until=5)
    [jump] = trainer.checkpoint_callback.jumps
    assert (jump.step, jump.target_step, jump.method) == (5, 5, "wsm")
    result = returned(server, jump.job, tmp_path / "result")
    assert [same(adapter, result) for adapter in adapters(trainer.actor_rollout_wg)] == [True, True]
    assert same(saved(tmp_path / "run", 5, tmp_path / "saved"), result), "the last checkpoint ends with it"
    state = RunState.read(tmp_path / "run" / "global_step_5")
    assert [(made.step, made.job) for made in state.jumps] == [(5, jump.job)]


def test_a_run_that_ends_before_its_jump_is_told_so(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path / "run", *JUMPING, "trainer.total_training_steps=4")
    trainer.train(until=1)
    assert "this run ends after step 4, before a jump that is due when the step after 4 begins" in caplog.text


def test_the_parts_of_the_pause_are_in_verl_s_log(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", *JUMPING, "+nextrapolate.collect_every=2")
    trainer.train(until=5)
    entries = logged(tmp_path / "run")
    assert [entry["step"] for entry in entries] == [2, 4]
    assert entries[0]["data"].keys() == {"next/collect_seconds"}
    assert entries[1]["data"]["next/target_step"] == 7
    parts = {f"next/{part}_seconds" for part in ("uploads", "job", "download", "swap", "save", "collect")}
    assert entries[1]["data"].keys() >= parts


@pytest.mark.parametrize(("optimizer", "left"), [("keep", 28), ("reset", 0)])
def test_the_optimizer(optimizer: str, left: int, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", *JUMPING, f"+nextrapolate.optimizer={optimizer}")
    trainer.train(until=4)
    assert len(jobs(trainer)) == 1
    assert on_every_rank(trainer.actor_rollout_wg, moments) == [left, left]
    trainer.train(until=5)
    assert on_every_rank(trainer.actor_rollout_wg, moments) == [28, 28]


def test_without_a_server_the_run_is_the_one_that_it_would_have_been(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = make_trainer(tmp_path / "alone", "trainer.checkpoint_callback_class=null")
    alone.train(until=6)
    expected = adapters(alone.actor_rollout_wg)[0]
    with caplog.at_level(logging.ERROR, "nextrapolate"):
        trainer = make_trainer(tmp_path / "run", *JUMPING, *NO_SERVER)
        trainer.train(until=6)
    assert jobs(trainer) == []
    assert same(adapters(trainer.actor_rollout_wg)[0], expected)
    assert "no jump after step 4, training goes on from its own weights" in caplog.text


@pytest.mark.parametrize("kept", [1, 2])
def test_as_many_checkpoints_are_kept_as_asked_for(
    kept: int, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path / "run", *JUMPING, f"trainer.max_actor_ckpt_to_keep={kept}")
    for step in range(1, 7):
        trainer.train(until=step)
        whole = sorted(path.parent.name for path in (tmp_path / "run").glob("*/actor"))
        assert whole == [f"global_step_{n}" for n in range(max(1, step - kept + 1), step + 1)]
    assert len(jobs(trainer)) == 1


def test_where_one_rank_fails_all_have_the_run_s_own_adapter(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path / "run", *JUMPING, "+nextrapolate.optimizer=reset")
    workers = trainer.actor_rollout_wg
    trainer.train(until=3)
    train_step(workers)
    own = adapters(workers)[0]
    on_every_rank(workers, take_optimizer_from_the_last_rank)
    trainer.global_steps = 4
    with caplog.at_level(logging.ERROR, "nextrapolate"):
        trainer._save_checkpoint()
    on_every_rank(workers, give_optimizer_back)
    assert "no jump after step 4, training goes on from its own weights" in caplog.text
    assert jobs(trainer) == []
    assert [same(adapter, own) for adapter in adapters(workers)] == [True, True]
    trainer.train(until=6)
    assert RunState.read(tmp_path / "run" / "global_step_6").jumps == ()


def test_a_swap_that_fails_says_so_in_a_way_that_the_callback_takes(workers: RayWorkerGroup) -> None:
    def write(worker: Any) -> None:
        import ray

        write_adapter(worker, ray.put({}), frozenset())

    with pytest.raises(TrainerPluginError, match="is not in the adapter"):
        on_every_rank(workers, write)
