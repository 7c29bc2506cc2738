"""`HATCHERY=SOCKET python -m hatchery.server`: `nextrapolate-server`, with workers of the hatchery's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hatchery import births
from nextrapolate_service.server import cli, embedded
from nextrapolate_service.server.commands import worker_command
from nextrapolate_service.server.leash import leashed

PROGRAM = (sys.executable, "-m", "hatchery.server")


def hatched_worker_command(node: str) -> tuple[str, ...]:
    """A worker as `worker_command` has it, with its children from the hatchery that $HATCHERY names."""
    return tuple(word.replace("nextrapolate_worker.app", "hatchery.worker") for word in worker_command(node))


@contextmanager
def running_hatchery(folder: Path) -> Iterator[dict[str, str]]:
    """Run a hatchery in `folder`; gives the environment in which `PROGRAM` finds it."""
    path = folder / "hatchery.sock"
    command = leashed((sys.executable, births.__file__, "keep", str(path)))
    modules = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    with (folder / "hatchery.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield {"HATCHERY": str(path), "PYTHONPATH": os.pathsep.join(filter(None, modules))}
        finally:
            process.terminate()


if __name__ == "__main__":
    setattr(embedded, "worker_command", hatched_worker_command)  # noqa: B010 (mypy: it is not its own)
    cli.main()
