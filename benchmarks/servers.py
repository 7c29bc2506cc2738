"""Servers that a benchmark starts for itself, in a folder of its own."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from fixtures.redis import running as running_redis

from nextrapolate_service.server.commands import api_command_on
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_store.keys import new_key


@contextmanager
def running_server(folder: Path) -> Iterator[tuple[str, str, psutil.Process]]:
    """Run `nextrapolate-server`; gives its address, its key and the process of its API."""
    program = Path(sys.executable).parent / "nextrapolate-server"
    command = [str(program), "--port", "0", "--data-dir", str(folder / "data")]
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            url = next(found[1] for line in server.stdout if (found := re.search(r"ready on (\S+)", line)))
            children = psutil.Process(server.pid).children()
            api = next(child for child in children if any("serving" in word for word in child.cmdline()))
            yield url, (folder / "data" / "api_key").read_text().strip(), api
        finally:
            server.terminate()
            server.communicate()  # it tells of its end, which somebody has to read


@contextmanager
def running_api(folder: Path) -> Iterator[tuple[int, str, psutil.Process]]:
    """Run Redis (appendfsync always) and one API, and no worker; gives its port, a key and its process."""
    embedded = EmbeddedRedis.prepare(find_redis_server(None), folder / "data")
    key = new_key("benchmark")
    (folder / "api_key").write_text(key)
    environment = {
        "NEXTRAPOLATE_REDIS_URL": embedded.url,
        "NEXTRAPOLATE_DATA_DIR": str(folder / "data"),
        "NEXTRAPOLATE_API_KEY_FILE": str(folder / "api_key"),
        "NEXTRAPOLATE_RATE_LIMIT": "0",
        "NEXTRAPOLATE_QUOTA_QUEUED_JOBS": "1000000",
    }
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener, running_redis(embedded):
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        with (folder / "log").open("wb") as log:
            api = subprocess.Popen(
                api_command_on(listener),
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                pass_fds=(descriptor,),
            )
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}/readyz")
            yield port, key, psutil.Process(api.pid)
        finally:
            api.terminate()
            api.wait()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 120
    while not (answer := httpx.get(url, timeout=120)).is_success:
        if time.monotonic() > deadline:
            answer.raise_for_status()
        time.sleep(0.1)
