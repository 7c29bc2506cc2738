"""Runs that are killed and resumed around their jump."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.grpo import MakeTrainer, tiny_parts
from fixtures.server import EmbeddedServer
from trl.trainer.grpo_trainer import GRPOTrainer

from nextrapolate import Gate, NExtClient
from nextrapolate.wire.calls import Call
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.trl import NExtCallback
from nextrapolate_trainer.trl_internals import Trainer

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]


class CountingClient(NExtClient):
    """Counts what it uploads."""

    uploads: int = 0

    def _send_once(self, call: Call[Any]) -> Any:
        self.uploads += call.method == "PUT"
        return super()._send_once(call)


@pytest.fixture
def client(embedded_server: EmbeddedServer) -> Iterator[CountingClient]:
    with CountingClient(embedded_server.url, embedded_server.api_key) as client:
        yield client


def jumping(client: NExtClient, jump_every: int | None = None) -> NExtCallback:
    """Collect every 2 steps, jump after step 4."""
    return NExtCallback(
        client,
        collect_every=2,
        jump_at=4,
        jump_every=jump_every,
        horizon_steps=2,
        method="weight-extrapolation",
        gate=Gate(min_backtest_cosine=-1),
    )


def state(folder: Path, step: int) -> RunState:
    return RunState.read(folder / f"checkpoint-{step}")


def test_a_run_that_is_resumed_beyond_its_only_jump_and_has_not_made_it_is_told_so(
    make_trainer: MakeTrainer, client: CountingClient, caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(save_steps=5, max_steps=5).train()
    trainer = make_trainer(max_steps=6)
    jumping(client).attach(trainer)
    trainer.train(resume_from_checkpoint=True)
    assert "this run resumes from step 5, but its only jump was due after step 4" in caplog.text


def test_resumed_at_five_places_around_the_jump(
    make_trainer: MakeTrainer, client: CountingClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"save_steps": 1, "max_steps": 7}
    first = jumping(client).attach(make_trainer(**options))
    assert first._trainer is not None
    first._trainer.train()
    [jump] = first.jumps
    run = tmp_path / "run"
    before = {step: state(run, step) for step in range(2, 7)}
    assert [[made.job for made in before[step].jumps] for step in (3, 4, 5, 6)] == [
        [],
        [],
        [jump.job],
        [jump.job],
    ]

    # Backwards, so that every resumed run leaves the path that the one before has written over.
    for step in (6, 5, 4, 3, 2):
        client.uploads = 0
        trainer = make_trainer(**options)
        resumed = jumping(client).attach(trainer)
        trainer.train(resume_from_checkpoint=str(run / f"checkpoint-{step}"))
        assert [made.step for made in resumed.jumps] == ([4] if step <= 4 else []), step
        last = state(run, 7)
        assert [made.step for made in last.jumps] == [4]
        assert last.jumps[0].job == (resumed.jumps[0].job if resumed.jumps else jump.job)
        assert last.series is not None
        series = client.get_series(last.series)
        assert [checkpoint.step for checkpoint in series.checkpoints] == [2, 4, 6]
        assert [(made.step, made.job) for made in series.jumps] == [(4, last.jumps[0].job)]
        # Steps that the service has are named, not sent.
        assert client.uploads <= (6 - step) // 2
    assert "only jump" not in caplog.text, "it is made, or lies ahead"


def test_a_run_that_goes_on_keeps_its_series(
    make_trainer: MakeTrainer, client: NExtClient, tmp_path: Path
) -> None:
    first = make_trainer(max_steps=5, save_steps=5)
    jumping(client).attach(first)
    first.train()
    trainer = make_trainer(max_steps=6, save_steps=1)
    resumed = jumping(client).attach(trainer)
    trainer.train(resume_from_checkpoint=True)
    assert resumed.jumps == []
    assert state(tmp_path / "run", 6).series == state(tmp_path / "run", 5).series


@pytest.mark.parametrize("kind", ["float32", "mixed precision", "model in bfloat16", "modules to save"])
def test_an_adapter_is_known_again_as_the_trainer_loads_it(
    kind: str, make_trainer: MakeTrainer, client: NExtClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def trainer(max_steps: int) -> Trainer:
        parts = tiny_parts(
            tmp_path / "run", max_steps=max_steps, save_steps=1, bf16=kind == "mixed precision"
        )
        if kind == "model in bfloat16":
            parts["model"] = parts["model"].to(torch.bfloat16)
        if kind == "modules to save":
            parts["peft_config"].modules_to_save = ["norm"]
        return GRPOTrainer(**parts)

    first = trainer(5)  # after the jump, which waits for the series
    jumping(client).attach(first)
    first.train()
    second = trainer(6)
    jumping(client).attach(second)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5"))
    assert "a new series begins" not in caplog.text
    before, after = state(tmp_path / "run", 5), state(tmp_path / "run", 6)
    assert before.series is not None
    assert before.series == after.series
    assert None not in (before.adapter, after.adapter)
    assert before.adapter != after.adapter


def test_another_runs_state_is_not_taken_on(
    make_trainer: MakeTrainer, client: NExtClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, rate in (("one", 1e-3), ("other", 2e-3)):
        trainer = make_trainer(name=name, max_steps=5, save_steps=5, learning_rate=rate)
        jumping(client).attach(trainer)
        trainer.train()
    trainer = make_trainer(name="other", max_steps=6, save_steps=6)
    jumping(client).attach(trainer)
    trainer.train(resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-5"))
    assert (
        "checkpoint-5 was saved with a different adapter from the one that the run continues with"
    ) in caplog.text
    assert "If the run resumes from another folder, name it in the trainer's arguments" in caplog.text
    assert state(tmp_path / "other", 6).jumps == ()
    (newest,) = client.list_series(limit=1)
    assert [checkpoint.step for checkpoint in newest.checkpoints] == [6]


def test_arguments_that_name_a_checkpoint_which_was_not_loaded_do_not_mislead(
    make_trainer: MakeTrainer, client: NExtClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_trainer(max_steps=5, save_steps=1)
    jumping(client).attach(first)
    first.train()
    run = tmp_path / "run"
    again = make_trainer(max_steps=6, save_steps=1, resume_from_checkpoint=str(run / "checkpoint-3"))
    jumping(client).attach(again)
    again.train(resume_from_checkpoint=True)
    assert "a new series begins" not in caplog.text
    assert [made.step for made in state(run, 6).jumps] == [4], "the jump before step 5 is not forgotten"
    assert state(run, 6).series == state(run, 5).series


def test_without_a_state_a_new_series_begins(
    make_trainer: MakeTrainer, client: NExtClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(max_steps=3, save_steps=3).train()
    trainer = make_trainer(max_steps=6, save_steps=6)
    resumed = jumping(client).attach(trainer)
    trainer.train(resume_from_checkpoint=True)
    assert "a new series begins at step 3" in caplog.text
    assert "if it resumes from here, its series cannot be continued: it was saved without" in caplog.text
    assert resumed.jumps == [], "one checkpoint is no trajectory"
    series = state(tmp_path / "run", 6).series
    assert series is not None
    assert [checkpoint.step for checkpoint in client.get_series(series).checkpoints] == [4, 6]


def test_a_jump_whose_job_has_expired_keeps_none_from_being_made(
    make_trainer: MakeTrainer, client: NExtClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_trainer(max_steps=7, save_steps=1)
    jumping(client).attach(first)
    first.train()
    # The server deletes jobs after a while; this one it has never had.
    checkpoint = tmp_path / "run" / "checkpoint-5"
    known = RunState.read(checkpoint)
    gone = known.jumps[0].model_copy(update={"job": "gone"})
    known.model_copy(update={"jumps": (gone,)}).write(checkpoint)
    trainer = make_trainer(max_steps=9, save_steps=9)
    resumed = jumping(client, jump_every=4).attach(trainer)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert [made.step for made in resumed.jumps] == [8]
    assert "without the checkpoints before step 6: there is no job gone" in caplog.text
    series = state(tmp_path / "run", 9).series
    assert series is not None
    assert [checkpoint.step for checkpoint in client.get_series(series).checkpoints] == [6, 8]


def test_old_checkpoints_go_with_their_states(
    make_trainer: MakeTrainer, client: NExtClient, tmp_path: Path
) -> None:
    trainer = make_trainer(max_steps=6, save_steps=2, save_total_limit=1)
    jumping(client).attach(trainer)
    trainer.train()
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-6"]
    assert [made.step for made in state(tmp_path / "run", 6).jumps] == [4]
