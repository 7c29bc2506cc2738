"""How long callers wait for a job to be accepted, some of them at once, with every write flushed to disk.

    PYTHONPATH=tests python -m benchmarks.submit [--clients 8] [--jobs 2000] [--folder FOLDER]

Runs a Redis (appendfsync always) and one API process, and no worker: nothing else competes for the machine.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from fixtures.adapters import write_run
from fixtures.redis import running as running_redis

from nextrapolate import NExtClient
from nextrapolate_service.server.commands import api_command_on
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_store.keys import new_key


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as name,
        running_api(Path(name)) as (port, key, api),
    ):
        series = upload(port, key, Path(name))
        share = arguments.jobs // arguments.clients
        submit(port, key, series, 20, [])  # so that every part has been imported
        seconds: list[float] = []
        worked = cpu_seconds(api)
        started = time.perf_counter()
        threads = [
            threading.Thread(target=submit, args=(port, key, series, share, seconds))
            for _ in range(arguments.clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - started
        worked = cpu_seconds(api) - worked
    ordered = sorted(seconds)
    p50, p99 = (1000 * ordered[len(ordered) * percent // 100] for percent in (50, 99))
    print(
        f"{arguments.clients} clients: {len(ordered) / elapsed:.0f} jobs/s, p50 {p50:.0f} ms, "
        f"p99 {p99:.0f} ms, longest {1000 * ordered[-1]:.0f} ms; load average {os.getloadavg()[0]:.1f}, "
        f"{1000 * worked / len(ordered):.1f} ms of the API's CPU a job"
    )


def submit(port: int, key: str, series: str, jobs: int, seconds: list[float]) -> None:
    """Submit jobs one after the other over one connection, and note how long each took."""
    body = json.dumps({"series": series, "method": {"name": "none"}})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(jobs):
        started = time.perf_counter()
        connection.request("POST", "/jobs", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        seconds.append(time.perf_counter() - started)
        if answer.status != 202:
            raise RuntimeError(content.decode())
    connection.close()


def cpu_seconds(process: psutil.Process) -> float:
    """What a process has computed so far: unlike the clock, it does not depend on who else does."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def running_api(folder: Path) -> Iterator[tuple[int, str, psutil.Process]]:
    """Run Redis and one API; gives its port, a key and its process."""
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
            httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60).raise_for_status()
            yield port, key, psutil.Process(api.pid)
        finally:
            api.terminate()
            api.wait()


def upload(port: int, key: str, folder: Path) -> str:
    """Upload a tiny run; gives the id of its series."""
    run = write_run(folder / "run", (10, 20, 30), modules={"q_proj": (6, 4)}, rank=2)
    with NExtClient(f"http://127.0.0.1:{port}", key) as client:
        series = client.create_series("benchmark").id
        for step in (10, 20, 30):
            client.put_checkpoint(series, step, run / f"checkpoint-{step}")
    return series


if __name__ == "__main__":
    main()
