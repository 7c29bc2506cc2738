"""What of a watched folder is a checkpoint of its run: whole, alone of its step, and of this run."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from fixtures.adapters import write_run
from fixtures.scripted_server import ScriptedServer
from fixtures.server import EmbeddedServer
from fixtures.watched import appear, look_on

from nextrapolate import NExtClient
from nextrapolate.folders import step_of
from nextrapolate.methods import make_method
from nextrapolate.schemas import Series
from nextrapolate.watch_notes import Notes
from nextrapolate.watched_folder import WatchedFolder
from nextrapolate.watched_jumps import WatchPlan
from nextrapolate.watching import UnfitRunError, Watcher

NEEDED = "adapter_model.safetensors and adapter_config.json are needed"
METHOD = make_method("weight-extrapolation", horizon_steps=10)


@pytest.mark.integration
def test_a_run_that_is_started_again_in_the_folder_has_a_series_of_its_own(
    client: NExtClient, written: Path, folder: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    plan = WatchPlan(METHOD, jump_at=20, jump_every=None, out=tmp_path / "out")
    appear(written, folder, 10, 20)
    watcher = Watcher(client, folder, plan, lines.append)
    watcher.look()
    assert not look_on(watcher)
    first = str(watcher.notes.series)
    for step in (10, 20):
        os.utime(folder / f"checkpoint-{step}" / "adapter_config.json")  # a copy of it is it
    again = Watcher(client, folder, WatchPlan(METHOD, jump_at=20, jump_every=20, out=plan.out), lines.append)
    again.look()
    again.look()
    assert (again.notes.series, len(again.notes.jumps)) == (first, 1)

    (folder / "checkpoint-10" / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 8}')
    again.look()
    again.look()
    assert "step 10 is left out: " in lines[-1]
    assert (again.notes.series, len(again.notes.jumps)) == (first, 1)

    other = write_run(tmp_path / "other", range(10, 70, 10), seed=1)
    shutil.rmtree(folder / "checkpoint-10")
    appear(other, folder, 10)
    lines.clear()
    for _ in range(5):
        again.look()
    assert lines[0].startswith("trying again: step 10 is not the checkpoint that was posted: another run")
    assert again.notes.series != first
    assert again.notes.jumps == [], "step 20 is the other run's still"
    shutil.rmtree(folder / "checkpoint-20")
    appear(other, folder, 20, 30)
    for _ in range(3):
        again.look()
    look_on(again)
    assert [info.step for info in client.get_series(str(again.notes.series)).checkpoints] == [10, 20, 30]
    assert [info.step for info in client.get_series(first).checkpoints] == [10, 20]
    (jump,) = again.notes.jumps
    assert (jump.step, jump.failure) == (30, None)
    assert jump.path is not None
    assert jump.path.parent == plan.out


@pytest.mark.integration
def test_a_checkpoint_that_the_service_refuses_holds_up_no_other(
    client: NExtClient, written: Path, folder: Path
) -> None:
    appear(written, folder, 10, 20, 30, 40)
    cut_short = folder / "checkpoint-20" / "adapter_model.safetensors"
    whole = cut_short.read_bytes()
    cut_short.write_bytes(whole[:-100])
    (folder / "checkpoint-30" / "adapter_config.json").write_text("{")
    lines: list[str] = []
    watcher = Watcher(client, folder, WatchPlan(METHOD, jump_at=30, jump_every=10, out=folder), lines.append)
    for _ in range(3):
        assert look_on(watcher)
    assert lines[0] == "posted step 10"
    assert lines[1].startswith("step 20 is left out: adapter_model.safetensors: the file is truncated")
    assert lines[2].startswith(
        f"step 30 is left out: {folder / 'checkpoint-30' / 'adapter_config.json'} is not JSON"
    )
    assert lines[3] == "posted step 40"
    assert lines[5].startswith("extrapolated step 40 to 50: ")
    assert not [line for line in lines[6:] if line.startswith(("step", "trying"))], "each is told of once"

    lines.clear()
    cut_short.write_bytes(whole)
    appear(written, folder, 50)
    for _ in range(3):
        assert look_on(watcher)
    assert lines[:2] == ["posted step 20", "posted step 50"]
    assert lines[3].startswith("extrapolated step 50 to 60: ")
    assert watcher.notes.series is not None
    series = client.get_series(watcher.notes.series)
    assert [checkpoint.step for checkpoint in series.checkpoints] == [10, 20, 40, 50]


@contextmanager
def stopped_workers(server: EmbeddedServer) -> Iterator[None]:
    """Have jobs wait, as they do in a queue behind others."""
    children = psutil.Process(server.process.pid).children()
    workers = [child for child in children if "celery" in child.cmdline()]
    assert workers
    for worker in workers:
        worker.suspend()
    try:
        yield
    finally:
        for worker in workers:
            worker.resume()


@pytest.mark.integration
def test_a_trainer_may_remove_its_checkpoints_while_a_job_is_on_its_way(
    embedded_server: EmbeddedServer, client: NExtClient, written: Path, folder: Path
) -> None:
    lines: list[str] = []
    appear(written, folder, 10, 20)
    watcher = Watcher(client, folder, WatchPlan(METHOD, jump_at=20, jump_every=20, out=folder), lines.append)
    watcher.look()
    with stopped_workers(embedded_server):
        for step in (30, 40, 50):
            watcher.look()
            appear(written, folder, step)
            watcher.look()
            shutil.rmtree(folder / f"checkpoint-{step - 20}")
        watcher.look()
        (jump,) = watcher.notes.jumps
        assert not client.get_job(jump.job).state.is_final
        assert [line for line in lines if line.startswith("posted")] == [
            f"posted step {step}" for step in (10, 20, 30, 40, 50)
        ]
    look_on(watcher)
    assert [jump.step for jump in watcher.notes.jumps] == [20, 50]
    assert not [line for line in lines if line.startswith("note: no checkpoint between")]


@pytest.mark.integration
def test_a_stretch_of_which_nothing_was_posted_is_told_of_once(
    client: NExtClient, folder: Path, tmp_path: Path
) -> None:
    written = write_run(tmp_path / "written", [10, 20, 40, 80, 100])
    lines: list[str] = []
    plan = WatchPlan(METHOD, jump_at=1000, jump_every=None, out=folder)
    watcher = Watcher(client, folder, plan, lines.append)

    def told_after(*steps: int) -> list[str]:
        lines.clear()
        appear(written, folder, *steps)
        for _ in range(3):
            watcher.look()
        return [line for line in lines if line.startswith("note: ")]

    assert told_after(10, 20) == []
    (folder / "checkpoint-30").mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folder / "checkpoint-30" / name).touch()
    assert told_after(40) == [], "step 30 is there, and left out for what is in it"
    shutil.rmtree(folder / "checkpoint-40")
    (gap,) = told_after(80)
    assert gap.startswith(
        "note: no checkpoint between step 40 and step 80 was posted, though earlier ones are at most 20 steps"
    )
    assert told_after(100) == []


@pytest.mark.integration
def test_a_checkpoint_that_is_away_for_a_moment_is_posted_when_it_is_back(
    embedded_server: EmbeddedServer, written: Path, folder: Path
) -> None:
    appear(written, folder, 10)
    checkpoint, away = folder / "checkpoint-10", folder.with_name("away")

    class Late(NExtClient):
        """Comes to upload the first checkpoint when it has just been moved."""

        def create_series(self, *args: Any, **kwargs: Any) -> Series:
            checkpoint.rename(away)
            return super().create_series(*args, **kwargs)

    lines: list[str] = []
    plan = WatchPlan(METHOD, jump_at=20, jump_every=None, out=folder)
    with Late(embedded_server.url, embedded_server.api_key) as client:
        watcher = Watcher(client, folder, plan, lines.append)
        for _ in range(2):
            watcher.look()
        (told,) = lines
        assert told.startswith(f"trying again: {checkpoint} contains no PEFT adapter")
        away.rename(checkpoint)
        for _ in range(2):
            watcher.look()
    assert lines[1:] == ["posted step 10"]


@pytest.mark.parametrize(
    "name", ["checkpoint-10", "global_step_10", "global_step10_hf", "step_10", "step_10/lora_adapters"]
)
def test_steps_of_trainers(name: str, tmp_path: Path) -> None:
    assert step_of(tmp_path / name) == 10
    assert step_of(tmp_path / "step_2" / name, tmp_path / "step_2") == 10


def test_folders_above_the_run_tell_no_step(written: Path, tmp_path: Path, scripted: ScriptedServer) -> None:
    folder = shutil.copytree(written / "checkpoint-60", tmp_path / "step_2" / "run")  # a final adapter
    assert step_of(folder, folder) is None
    lines: list[str] = []
    plan = WatchPlan(METHOD, jump_at=20, jump_every=None, out=folder)
    watcher = Watcher(NExtClient(scripted.url), folder, plan, lines.append)
    for _ in range(2):
        assert watcher.look()
    assert scripted.received == []
    assert lines == []


def test_what_is_no_checkpoint_is_left_out(written: Path, folder: Path, scripted: ScriptedServer) -> None:
    appear(written, folder, 10, 20)
    shutil.copytree(written / "checkpoint-10", folder / "checkpoint-30" / "ref")
    shutil.copytree(written / "checkpoint-10", folder / ".trash" / "checkpoint-40")
    (folder / "checkpoint-20" / "adapter_model.safetensors").rename(
        folder / "checkpoint-20" / "adapter_model.bin"
    )
    scripted.stop()
    lines: list[str] = []
    plan = WatchPlan(METHOD, jump_at=20, jump_every=None, out=folder)
    watcher = Watcher(NExtClient(scripted.url), folder, plan, lines.append)
    for _ in range(3):
        assert watcher.look()
    pickled, without, unreachable = lines
    assert pickled.startswith("step 20 is left out for now: ")
    assert "is a pickle" in pickled
    assert unreachable.startswith("trying again: no nextrapolate server answers")
    assert (
        without
        == f"step 30 is left out for now: {folder / 'checkpoint-30'} contains no PEFT adapter: " + NEEDED
    )
    assert watcher.notes.posted == []


def test_checkpoints_of_verl_are_to_be_exported(folder: Path, scripted: ScriptedServer) -> None:
    shard = folder / "global_step_10" / "actor" / "model_world_size_1_rank_0.pt"
    shard.parent.mkdir(parents=True)
    shard.touch()
    lines: list[str] = []
    plan = WatchPlan(METHOD, jump_at=20, jump_every=None, out=folder)
    watcher = Watcher(NExtClient(scripted.url), folder, plan, lines.append)
    assert watcher.look()
    assert lines == [], "its adapter may still come"
    assert watcher.look()
    (line,) = lines
    assert line.startswith("step 10 is left out for now: ")
    assert "python -m nextrapolate_trainer.verl_export" in line


def test_of_a_model_with_two_adapters_the_checkpoints_own_is_taken(written: Path, folder: Path) -> None:
    """PEFT saves others in folders of their names within."""
    appear(written, folder, 10)
    shutil.copytree(written / "checkpoint-20", folder / "checkpoint-10" / "critic")
    lines: list[str] = []
    watched, notes = WatchedFolder(folder, lines.append), Notes()
    assert list(watched.settled(notes)) == []
    (taken,) = watched.settled(notes)
    assert (taken.step, taken.folder, lines) == (10, folder / "checkpoint-10", [])


@pytest.mark.integration
def test_a_run_that_the_service_takes_no_series_of_ends_the_watch(
    client: NExtClient, written: Path, folder: Path
) -> None:
    config = written / "checkpoint-10" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_bytes()) | {"use_dora": True}))
    appear(written, folder, 10)
    watcher = Watcher(client, folder, WatchPlan(METHOD, jump_at=20, jump_every=None, out=folder), print)
    with pytest.raises(UnfitRunError, match=r"cannot be extrapolated: .*use_dora"):
        watcher.run(every=0.01)


def test_of_two_folders_of_one_step_neither_is_taken(
    written: Path, folder: Path, scripted: ScriptedServer
) -> None:
    appear(written, folder, 10)
    shutil.copytree(written / "checkpoint-20", folder / "old" / "checkpoint-10")
    lines: list[str] = []
    plan = WatchPlan(METHOD, jump_at=20, jump_every=None, out=folder)
    watcher = Watcher(NExtClient(scripted.url), folder, plan, lines.append)
    for _ in range(3):
        assert watcher.look()
    assert not scripted.received
    first, second = folder / "checkpoint-10", folder / "old" / "checkpoint-10"
    assert lines == [f"step 10 is left out for now: {first} and {second} are both of it; leave one there"]
