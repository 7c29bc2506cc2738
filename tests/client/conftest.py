"""What tests of the client share: a server, and a folder that somebody else's trainer writes into."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.adapters import write_run
from fixtures.server import EmbeddedServer

from nextrapolate import NExtClient


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Checkpoints 10 to 60, as a trainer is going to write them into another folder."""
    return write_run(tmp_path / "written", range(10, 70, 10))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def client(embedded_server: EmbeddedServer) -> Iterator[NExtClient]:
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        yield client
