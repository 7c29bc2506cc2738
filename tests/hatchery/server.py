"""`HATCHERY=SOCKET python -m hatchery.server`: `nextrapolate-server`, with workers of the hatchery's."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hatchery import births
from nextrapolate_service.server import cli, embedded
from nextrapolate_service.server.commands import worker_command
from nextrapolate_service.server.leash import leashed

PROGRAM = (sys.executable, "-m", "hatchery.server")


def hatched_worker_command(node: str) -> tuple[str, ...]:
    """A worker as `worker_command` has it, with its children from the hatchery that $HATCHERY names."""
    return tuple(word.replace("nextrapolate_worker.app", "hatchery.worker") for word in worker_command(node))


@dataclass(frozen=True)
class Hatchery:
    """A running hatchery.

    Attributes:
        path: the socket at which it listens.
    """

    path: Path

    @property
    def command(self) -> tuple[str, ...]:
        """What to start in the place of a child."""
        return births.hatch_command(str(self.path))

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which `PROGRAM` finds it."""
        modules = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
        return {"HATCHERY": str(self.path), "PYTHONPATH": os.pathsep.join(filter(None, modules))}


@contextmanager
def running_hatchery(folder: Path) -> Iterator[Hatchery]:
    """Run a hatchery in `folder`, from when it listens."""
    path = folder / "hatchery.sock"
    command = leashed((sys.executable, births.__file__, "keep", str(path)))
    with (folder / "hatchery.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            while not path.exists():
                assert process.poll() is None, (folder / "hatchery.log").read_text()
                time.sleep(0.01)
            yield Hatchery(path)
        finally:
            process.terminate()


if __name__ == "__main__":
    setattr(embedded, "worker_command", hatched_worker_command)  # noqa: B010 (mypy: it is not its own)
    cli.main()
