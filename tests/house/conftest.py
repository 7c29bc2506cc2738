"""A server beside a run, and a user's shell, for what the documentation tells to do."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.adapters import write_run
from fixtures.server import EmbeddedServer, Shell, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server started in a folder that holds a run, as the README tells."""
    folder = tmp_path_factory.mktemp("documented")
    write_run(folder / "grpo-run", range(10, 160, 10))
    with running_server(folder) as server:
        yield server


@pytest.fixture
def environment(server: EmbeddedServer) -> dict[str, str]:
    """What a user's shell knows: the commands, the server's URL, and where the server noted its key."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NEXTRAPOLATE_URL": server.url,
        "XDG_CONFIG_HOME": str(server.config_home),
    }


@pytest.fixture
def shell(server: EmbeddedServer, environment: dict[str, str]) -> Shell:
    """Runs a command in the server's folder, and gives what it printed."""

    def run(command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=server.data_dir.parent,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
