from pathlib import Path

import pytest

from nextrapolate.jumped import RUN_STATE
from nextrapolate.schemas import JumpInfo
from nextrapolate_trainer.errors import StateError
from nextrapolate_trainer.state import RunState


def test_a_state_reads_back(tmp_path: Path) -> None:
    state = RunState(step=9, series="s1", jumps=(JumpInfo(step=8, job="j1"),))
    state.write(tmp_path)
    assert RunState.read(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == [RUN_STATE]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"contains no readable nextrapolate\.json"):
        RunState.read(tmp_path)
    (tmp_path / RUN_STATE).write_text('{"step": ')
    with pytest.raises(
        StateError, match=r"contains no readable nextrapolate\.json \(Invalid JSON: [^\n]*\)$"
    ):
        RunState.read(tmp_path)


def test_a_state_that_cannot_be_written_leaves_nothing_half_done(tmp_path: Path) -> None:
    (tmp_path / RUN_STATE).mkdir()
    with pytest.raises(OSError, match="directory"):
        RunState(step=9, series="s1").write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [RUN_STATE]


def test_the_state_of_a_resumed_run_is_found_by_step_and_adapter(tmp_path: Path) -> None:
    named, own = tmp_path / "named", tmp_path / "own"
    for folder in (named, own):
        folder.mkdir()
    RunState(step=9, series="another", adapter="a" * 64).write(named)
    RunState(step=10, series="this", adapter="b" * 64).write(own)
    assert RunState.find([named, own], 10, "b" * 64).series == "this"
    with pytest.raises(StateError, match=r"named is of step 9, .*own was saved with a different adapter"):
        RunState.find([named, own], 10, "c" * 64)


def test_a_state_from_before_adapters_were_noted_is_taken(tmp_path: Path) -> None:
    (tmp_path / RUN_STATE).write_text('{"step": 10, "series": "s1", "jumps": []}')
    assert RunState.find([tmp_path], 10, "a" * 64).series == "s1"
