"""How long callers wait for a job to be accepted, some of them at once, with every write flushed to disk."""

import argparse
import http.client
import json
import os
import threading
import time
from pathlib import Path

import psutil
from fixtures.adapters import write_run

from benchmarks.servers import running_api
from benchmarks.written import markdown_table
from nextrapolate import NExtClient

COLUMNS = (
    "clients", "jobs/s", "p50, ms", "p99, ms", "longest, ms", "the API's CPU a job, ms",
    "a flush of 500 bytes alone: p50, p99, ms",
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen."""
    parser.add_argument("--clients", type=int, default=8, help="callers at once")
    parser.add_argument("--jobs", type=int, default=2000, help="of all callers together")


def measured(folder: Path, options: argparse.Namespace) -> str:
    """Submit to an API of its own; gives a table with one row."""
    flushes = percentiles([seconds_to_flush(folder / "flushed") for _ in range(300)])
    seconds: list[float] = []
    with running_api(folder) as (port, key, api):
        series = upload(port, key, folder)
        share = options.jobs // options.clients
        submit(port, key, series, 20, [])  # so that every part has been imported
        worked = cpu_seconds(api)
        started = time.perf_counter()
        threads = [
            threading.Thread(target=submit, args=(port, key, series, share, seconds))
            for _ in range(options.clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - started
        worked = cpu_seconds(api) - worked
    p50, p99 = percentiles(seconds)
    row = (
        options.clients,
        f"{len(seconds) / elapsed:.0f}",
        f"{p50:.0f}",
        f"{p99:.0f}",
        f"{1000 * max(seconds):.0f}",
        f"{1000 * worked / len(seconds):.1f}",
        "{:.1f}, {:.1f}".format(*flushes),
    )
    return markdown_table(COLUMNS, [row])


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    p50, p99 = (1000 * ordered[len(ordered) * percent // 100] for percent in (50, 99))
    return p50, p99


def seconds_to_flush(path: Path) -> float:
    """What the disk alone takes for one of the several flushes of a submit."""
    started = time.perf_counter()
    with path.open("ab") as file:
        file.write(b"x" * 500)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - started


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


def upload(port: int, key: str, folder: Path) -> str:
    """Upload a tiny run; gives the id of its series."""
    run = write_run(folder / "run", (10, 20, 30), modules={"q_proj": (6, 4)}, rank=2)
    with NExtClient(f"http://127.0.0.1:{port}", key) as client:
        series = client.create_series("benchmark").id
        for step in (10, 20, 30):
            client.put_checkpoint(series, step, run / f"checkpoint-{step}")
    return series
