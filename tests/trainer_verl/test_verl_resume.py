"""Runs of verl that are killed and resumed around a jump: one jump, one schedule."""

import shutil
from pathlib import Path

import pytest
from fixtures.server import EmbeddedServer
from fixtures.verl_run import MakeTrainer, Trainer, adapters, same

from nextrapolate import NExtClient
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.verl_run import withdrawn

pytestmark = pytest.mark.integration

JUMPING = ("+nextrapolate.jump_at=4", "+nextrapolate.horizon_steps=3")


def jumped(trainer: Trainer) -> list[int]:
    return [jump.step for jump in trainer.checkpoint_callback.jumps]


def go_back(run: Path, step: int) -> None:
    """Leave the run's folder as a kill after the save of this step would have."""
    (run / "latest_checkpointed_iteration.txt").write_text(str(step))


def test_resumed_at_five_places_around_the_jump(
    make_trainer: MakeTrainer, server: EmbeddedServer, tmp_path: Path
) -> None:
    to_the_end = (*JUMPING, "trainer.total_training_steps=7")
    first = make_trainer(tmp_path / "first", *to_the_end)
    first.train(until=7)
    assert jumped(first) == [4]
    expected = adapters(first.actor_rollout_wg)[0]
    for killed_after, jumps in [(2, [4]), (3, [4]), (4, []), (5, []), (6, [])]:
        run = tmp_path / f"killed-after-{killed_after}"
        shutil.copytree(tmp_path / "first", run)
        go_back(run, killed_after)
        trainer = make_trainer(run, *to_the_end)
        assert trainer.global_steps == killed_after
        trainer.train(until=7)
        assert jumped(trainer) == jumps
        assert same(adapters(trainer.actor_rollout_wg)[0], expected), (
            "to the last bit the run that was killed"
        )
        state = RunState.read(run / "global_step_7")
        assert [made.step for made in state.jumps] == [4]
        assert state.series is not None
        with NExtClient(server.url, server.api_key) as client:
            assert [made.step for made in client.get_series(state.series).jumps] == [4]


def test_a_jump_that_was_due_and_not_made_is_made_at_the_next_save(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    # As if it had been killed between the save of step 4 and the jump.
    make_trainer(run, "+nextrapolate.jump_at=100").train(until=4)
    trainer = make_trainer(run, *JUMPING)
    trainer.train(until=7)
    assert jumped(trainer) == [5]


def test_a_run_without_our_past_begins_a_new_series(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_trainer(run, "trainer.checkpoint_callback_class=null").train(until=2)
    trainer = make_trainer(run, "+nextrapolate.jump_at=7", "+nextrapolate.horizon_steps=3")
    trainer.train(until=7)
    assert jumped(trainer) == [7]


@pytest.mark.parametrize("previous_is_whole", [True, False])
def test_a_kill_while_files_are_moved_leaves_verl_the_previous_checkpoint(
    previous_is_whole: bool, tmp_path: Path
) -> None:
    tracker = tmp_path / "latest_checkpointed_iteration.txt"
    tracker.write_text("20")
    if previous_is_whole:
        (tmp_path / "global_step_10" / "actor").mkdir(parents=True)
    with (
        pytest.raises(KeyboardInterrupt),
        withdrawn(tmp_path / "global_step_20", tmp_path / "global_step_10"),
    ):
        raise KeyboardInterrupt
    assert (tracker.read_text() if tracker.exists() else None) == ("10" if previous_is_whole else None)
