"""The embedded server, started for the demo and stopped with it."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

COMMAND = Path(sys.executable).with_name("nextrapolate-server")
START_SECONDS = 180.0
STOP_SECONDS = 90.0
URL = re.compile(r"http://127\.0\.0\.1:\d+")


class ServerFailedError(Exception):
    """The server did not come up, or takes no work."""


@dataclass(frozen=True)
class Server:
    """Where the service answers, and the key it asks for."""

    url: str
    api_key: str


@contextmanager
def embedded_server(folder: Path, workers: int) -> Iterator[Server]:
    """Run `nextrapolate-server` on a free port, its data and its log in `folder`.

    Raises:
        ServerFailedError: it does not come up, and the message holds the end of its log; or it takes no new
            work, as on a full disk: then every jump of a run would be refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603 (our own command)
            [COMMAND, "--port=0", f"--data-dir={folder / 'data'}", f"--workers={workers}"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = _url(process, log)
        _require_ready(url)
        yield Server(url, (folder / "data" / "api_key").read_text().strip())
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _url(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := URL.search(log.read_text()):
            return found.group()
        time.sleep(0.1)
    raise ServerFailedError(
        f"nextrapolate-server did not come up; the end of {log}:\n{log.read_text()[-2000:]}"
    )


def _require_ready(url: str) -> None:
    readiness = httpx.get(f"{url}/readyz", trust_env=False, timeout=60).json()
    if not readiness["ready"]:
        reasons = "; ".join(reason for reason in readiness["checks"].values() if reason != "ok")
        raise ServerFailedError(f"nextrapolate-server accepts nothing new: {reasons}")
