"""A folder in which somebody else's trainer is going to write."""

from pathlib import Path

import pytest
from fixtures.adapters import write_run


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Checkpoints 10 to 60, as a trainer is going to write them into another folder."""
    return write_run(tmp_path / "written", range(10, 70, 10))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"
