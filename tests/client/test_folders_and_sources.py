"""What may be named as a trajectory, and what is refused before anything is sent."""

import json
import os
import shutil
from pathlib import Path

import pytest
from fixtures.client_examples import NOW, write_checkpoints

from nextrapolate import CheckpointError, CheckpointRef, Series
from nextrapolate.folders import find_checkpoints, read_checkpoints
from nextrapolate.jumped import RUN_STATE
from nextrapolate.sources import LocalRun, RemoteCheckpoints, StoredSeries, resolve

SERIES_ID = "01JGFJJZ00ABCDEFGHJKMNPQRS"


def test_steps_ascend_as_numbers(tmp_path: Path) -> None:
    run = write_checkpoints(tmp_path, 100, 20, 3)
    (run / "runs").mkdir()
    (run / "checkpoint-last").mkdir()
    assert [checkpoint.step for checkpoint in find_checkpoints(run)] == [3, 20, 100]
    assert [checkpoint.step for checkpoint in find_checkpoints(run, until=20)] == [3, 20]


@pytest.mark.parametrize("level", [0, 2])
def test_a_run_that_has_jumped_is_in_its_series(tmp_path: Path, level: int) -> None:
    run = write_checkpoints(tmp_path / "run", 10, 20, 30)
    state = {"step": 30, "series": SERIES_ID, "jumps": [{"step": 20, "job": "j"}]}
    notes = [(run / "checkpoint-30"), run, run.parent][level] / RUN_STATE
    (run / "checkpoint-10" / RUN_STATE).write_text('{"step": 10, "series": null}')
    notes.write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=f"after step 20, and .* its series, {SERIES_ID}, instead"):
        resolve(run, None)
    notes.write_text('{"name": "of another program"}')
    assert isinstance(resolve([run / "checkpoint-10", run / "checkpoint-30"], None), LocalRun)


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("kept", [0, 40, -1])
def test_a_damaged_note_is_none_of_a_run_that_has_not_jumped(tmp_path: Path, level: int, kept: int) -> None:
    run = write_checkpoints(tmp_path / "run", 10, 20, 30)
    state = {"step": 30, "series": SERIES_ID, "jumps": [{"step": 20, "job": "j"}]}
    note = [(run / "checkpoint-30"), run, run.parent][level] / RUN_STATE
    note.write_text(json.dumps(state)[:kept])
    with pytest.raises(CheckpointError, match=f"{note} cannot be read .*: give its series instead"):
        resolve(run, None)
    note.write_text(json.dumps(state | {"jumps": [{"step": "?"}]}))
    with pytest.raises(CheckpointError, match=f"{note} cannot be read .*: give its series instead"):
        resolve(run, None)


def test_a_note_that_another_run_has_left_is_named(tmp_path: Path) -> None:
    run = write_checkpoints(tmp_path, 10, 20, 30)
    note = run / "checkpoint-30" / RUN_STATE
    note.write_text(json.dumps({"step": 30, "series": SERIES_ID, "jumps": [{"step": 20, "job": "j"}]}))
    with pytest.raises(CheckpointError, match=r"before the first jump \(until\)\.$"):
        resolve(run, None)
    os.utime(note, (1, 1))
    with pytest.raises(CheckpointError, match=f"But {note} is older .* if another run left it, remove it"):
        resolve(run, None)


def test_an_adapter_of_another_name_is_found(tmp_path: Path) -> None:
    run = write_checkpoints(tmp_path, 10, 20)
    for step in (10, 20):
        checkpoint = run / f"checkpoint-{step}"
        for inner in ("policy", "ref"):
            (checkpoint / inner).mkdir()
            for name in ("adapter_model.safetensors", "adapter_config.json"):
                shutil.copy(checkpoint / name, checkpoint / inner)
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            (checkpoint / name).unlink()
    found = [checkpoint.folder for checkpoint in find_checkpoints(run)]
    assert found == [run / f"checkpoint-{step}" / "policy" for step in (10, 20)]
    shutil.copytree(run / "checkpoint-20" / "policy", run / "checkpoint-20" / "critic")
    with pytest.raises(CheckpointError, match="several adapters, critic, policy: give the folders of one"):
        find_checkpoints(run)


def test_before_its_first_jump_a_run_is_as_any_other(tmp_path: Path) -> None:
    run = write_checkpoints(tmp_path, 10, 20, 30)
    jumped = '{"step": 30, "series": null, "jumps": [{"step": 30, "job": "j"}]}'
    (run / "checkpoint-30" / RUN_STATE).write_text(jumped)
    assert isinstance(resolve(run, 20), LocalRun)
    with pytest.raises(CheckpointError, match="give its series instead"):
        resolve(str(run), None)


def test_verl_names(tmp_path: Path) -> None:
    for step in (10, 20):
        write_checkpoints(tmp_path / f"global_step_{step}" / "actor", step)
        inner = tmp_path / f"global_step_{step}" / "actor"
        (inner / f"checkpoint-{step}").rename(inner / "lora_adapter")
    found = find_checkpoints(tmp_path)
    assert [checkpoint.step for checkpoint in found] == [10, 20]
    adapters = [tmp_path / f"global_step_{step}" / "actor" / "lora_adapter" for step in (10, 20)]
    assert [checkpoint.folder for checkpoint in found] == adapters
    assert read_checkpoints(adapters) == found


@pytest.mark.parametrize(
    ("steps", "until", "message"),
    [
        ((), None, "no checkpoints: no folder there is named like checkpoint-10"),
        ((10,), None, "only checkpoint-10; a trajectory needs at least two checkpoints: save more often"),
        ((10, 20), 10, r"only checkpoint-10 up to step 10 \(there are \[10, 20\]\)"),
        ((10, 20), 5, "no checkpoint up to step 5 .* at least two checkpoints: choose a later step"),
        ((10,), 5, "no checkpoint up to step 5 .* at least two checkpoints: save more often"),
    ],
)
def test_too_few(tmp_path: Path, steps: tuple[int, ...], until: int | None, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        find_checkpoints(write_checkpoints(tmp_path, *steps), until)


def test_pickles_are_refused(tmp_path: Path) -> None:
    run = write_checkpoints(tmp_path, 10, 20)
    (run / "checkpoint-20" / "adapter_model.safetensors").rename(run / "checkpoint-20" / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"checkpoint-20/adapter_model\.bin is a pickle.*safe_serial"):
        find_checkpoints(run)


@pytest.mark.parametrize("missing", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    run = write_checkpoints(tmp_path, 10, 20)
    (run / "checkpoint-10" / missing).unlink()
    with pytest.raises(CheckpointError, match=f"checkpoint-10 has no {missing}"):
        find_checkpoints(run)


def test_a_full_checkpoint_is_refused(tmp_path: Path) -> None:
    run = write_checkpoints(tmp_path, 10, 20)
    (run / "checkpoint-30").mkdir()
    (run / "checkpoint-30" / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="checkpoint-30 contains no PEFT adapter"):
        find_checkpoints(run)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_config_is_named(tmp_path: Path, text: str) -> None:
    run = write_checkpoints(tmp_path, 10, 20)
    (run / "checkpoint-20" / "adapter_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"checkpoint-20/adapter_config\.json"):
        find_checkpoints(run)[-1].config()


def test_a_single_checkpoint_is_no_run(tmp_path: Path) -> None:
    run = write_checkpoints(tmp_path, 10)
    with pytest.raises(CheckpointError, match="give the folder that contains all of the run's"):
        find_checkpoints(run / "checkpoint-10")


def test_a_run_with_its_last_adapter_beside_its_checkpoints_may_lie_below_a_step(tmp_path: Path) -> None:
    run = write_checkpoints(tmp_path / "checkpoint-100" / "second_run", 10, 20)
    for file in (run / "checkpoint-20").iterdir():  # as a trainer's save_model leaves it
        (run / file.name).write_bytes(file.read_bytes())
    assert [found.step for found in find_checkpoints(run)] == [10, 20]


def test_folders_one_by_one(tmp_path: Path) -> None:
    a, b = write_checkpoints(tmp_path / "a", 10), write_checkpoints(tmp_path / "b", 10, 20)
    assert [c.step for c in read_checkpoints([b / "checkpoint-20", a / "checkpoint-10"])] == [10, 20]
    with pytest.raises(CheckpointError, match="both step 10"):
        read_checkpoints([a / "checkpoint-10", b / "checkpoint-10"])
    with pytest.raises(CheckpointError, match="a is a run that contains checkpoints: give a single run"):
        read_checkpoints([a, b])
    with pytest.raises(CheckpointError, match=r"there is no step in the path .*: name it like checkpoint-10"):
        read_checkpoints([tmp_path, b / "checkpoint-20"])


def test_sources_are_told_apart(tmp_path: Path) -> None:
    run = write_checkpoints(tmp_path / "run", 10, 20)
    whole = LocalRun(run, find_checkpoints(run))
    assert resolve(run, None) == resolve(str(run), None) == resolve([str(run)], None) == whole
    assert resolve([run / "checkpoint-10", str(run / "checkpoint-20")], None) == whole
    series = Series(
        id=SERIES_ID, name="r", base_model=None, labels={}, created_at=NOW, checkpoints=[], jumps=[]
    )
    assert resolve(series, None) == resolve(SERIES_ID, None) == StoredSeries(SERIES_ID)
    uris = resolve(["s3://b/checkpoint-10", "s3://b/checkpoint-20"], None)
    assert isinstance(uris, RemoteCheckpoints)
    assert [ref.uri for ref in uris.refs] == ["s3://b/checkpoint-10", "s3://b/checkpoint-20"]
    ranged = resolve("hf://org/run@step_{10..150..10}", None)
    assert isinstance(ranged, RemoteCheckpoints)
    assert [ref.uri for ref in ranged.refs] == ["hf://org/run@step_{10..150..10}"]
    (of_range,) = ranged.refs
    assert resolve(of_range, None) == resolve([of_range], None) == ranged
    first, second = CheckpointRef(uri="s3://b/a", step=10), CheckpointRef(uri="s3://b/checkpoint-20")
    assert resolve([first, second], None) == RemoteCheckpoints((first, second))
    assert resolve([first, second.uri], None) == RemoteCheckpoints((first, second))


def test_sources_that_name_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder nowhere"):
        resolve("nowhere", None)
    with pytest.raises(CheckpointError, match="URIs of at least two"):
        resolve("s3://bucket/checkpoint-10", None)
    with pytest.raises(CheckpointError, match="all as URIs or all as folders"):
        resolve(["s3://bucket/checkpoint-10", tmp_path], None)
    with pytest.raises(CheckpointError, match="all as URIs or all as folders"):
        resolve([tmp_path, CheckpointRef(uri="s3://bucket/a", step=10)], None)
    with pytest.raises(CheckpointError, match="URIs of at least two"):
        resolve([CheckpointRef(uri="s3://bucket/a", step=10)], None)
    with pytest.raises(CheckpointError, match="no checkpoints were given"):
        resolve(sorted(tmp_path.glob("checkpoint-*")), None)
