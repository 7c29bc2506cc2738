"""Faults in one process of a run while it jumps: all of them hear of it, none waits, and training goes on."""

import logging
from functools import partial
from pathlib import Path

import pytest
from fixtures.verl_run import MakeTrainer, Trainer, adapters, fail_once, same, train_or_hang

from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.verl_ranks import on_every_rank

pytestmark = pytest.mark.integration

JUMPING = ("+nextrapolate.jump_at=4", "+nextrapolate.horizon_steps=3", "trainer.total_training_steps=6")


def train_with_a_fault(trainer: Trainer, rank: int, fault: str) -> int:
    """Train to the end, where something fails in one rank at the jump; returns what could be resumed then."""
    train_or_hang(trainer, until=3)
    on_every_rank(trainer.actor_rollout_wg, partial(fail_once, rank=rank, fault=fault))
    train_or_hang(trainer, until=4)
    resumable = resumes_from(trainer)
    train_or_hang(trainer, until=6)
    assert resumes_from(trainer) == 6
    return resumable


def resumes_from(trainer: Trainer) -> int:
    """The step of the checkpoint that verl would go on from."""
    folder = Path(trainer.config.trainer.default_local_dir)
    return int((folder / "latest_checkpointed_iteration.txt").read_text())


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_costs_the_second_save_alone(
    rank: int, make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path / "run", *JUMPING)
    with caplog.at_level(logging.ERROR, "nextrapolate"):
        resumable = train_with_a_fault(trainer, rank, "torch.save")
    assert resumable == 4
    assert (
        "the checkpoint of step 4 may be incomplete, or hold the weights from before the jump" in caplog.text
    )
    assert f"process {rank}: OSError: [Errno 28] No space left on device" in caplog.text
    assert [jump.step for jump in trainer.checkpoint_callback.jumps] == [4]
    jumped_at = tmp_path / "run" / "global_step_4"
    assert not (jumped_at / "actor.after-jump").exists()
    assert RunState.read(jumped_at).jumps == (), "a run resumed from here jumps at its next save"


def test_files_that_cannot_be_moved_withdraw_the_checkpoint(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path / "run", *JUMPING)
    with caplog.at_level(logging.ERROR, "nextrapolate"):
        resumable = train_with_a_fault(trainer, 1, "Path.rename")
    assert resumable == 3, "of step 4 some parts have jumped"
    assert "process 1: OSError: [Errno 28] No space left on device" in caplog.text
    assert [jump.step for jump in trainer.checkpoint_callback.jumps] == [4]
    assert not (tmp_path / "run" / "global_step_4" / "actor.after-jump").exists()


def test_an_adapter_that_does_not_reach_one_node_is_written_on_none(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = make_trainer(tmp_path / "alone", "trainer.checkpoint_callback_class=null")
    alone.train(until=6)
    expected = adapters(alone.actor_rollout_wg)[0]
    trainer = make_trainer(tmp_path / "run", *JUMPING)
    with caplog.at_level(logging.ERROR, "nextrapolate"):
        train_with_a_fault(trainer, 1, "ray.get")
    assert "no jump after step 4, training goes on from its own weights" in caplog.text
    assert trainer.checkpoint_callback.jumps == []
    assert same(adapters(trainer.actor_rollout_wg)[0], expected)
