from pathlib import Path

import pytest

from nextrapolate.jumped import RUN_STATE
from nextrapolate_trainer.errors import StateError
from nextrapolate_trainer.state import JumpMade, RunState


def test_a_state_reads_back(tmp_path: Path) -> None:
    state = RunState(step=9, series="s1", jumps=(JumpMade(step=8, job="j1", fallback="f" * 64),))
    state.write(tmp_path)
    assert RunState.read(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == [RUN_STATE]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"holds no nextrapolate\.json"):
        RunState.read(tmp_path)
    (tmp_path / RUN_STATE).write_text('{"step": ')
    with pytest.raises(StateError, match=r"holds no nextrapolate\.json that can be read"):
        RunState.read(tmp_path)
