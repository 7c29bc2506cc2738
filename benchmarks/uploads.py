"""What an upload costs: the memory of the API, and the time beside that of a copy and a hash."""

import argparse
import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from benchmarks.servers import running_server
from benchmarks.written import markdown_table
from nextrapolate import NExtClient

MIB = 1 << 20
COLUMNS = ("MiB", "uploaded, s", "copied and hashed, s", "ratio", "growth of the API's memory, MiB")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen."""
    parser.add_argument("--mib", type=int, default=1024, help="size of an upload")
    parser.add_argument("--rounds", type=int, default=5, help="uploads, each of other bytes")


def measured(folder: Path, options: argparse.Namespace) -> str:
    """Upload to a server of its own; gives a table with a row for each round."""
    rows = []
    with running_server(folder) as (url, key, api), NExtClient(url, key) as client:
        series = client.create_series("benchmark").id
        path = folder / "adapter_model.safetensors"
        # The first round imports every part, and takes the memory that others have just left. No other has
        # any for less: they take turns, and all files stay.
        for step in range(options.rounds + 1):
            write_adapter(path, options.mib * MIB)
            before = peak_memory(api)
            works: dict[str, Callable[[], object]] = {
                "copied": partial(copy_and_hash, path, folder / f"copy-{step}"),
                "uploaded": partial(client.put_file, series, step, "adapter_model.safetensors", path),
            }
            order = list(works) if step % 2 else list(works)[::-1]
            seconds = {name: seconds_of(works[name]) for name in order}
            copied, uploaded = seconds["copied"], seconds["uploaded"]
            if not step:
                continue
            grown = (peak_memory(api) - before) / MIB
            rows.append(
                (options.mib, f"{uploaded:.2f}", f"{copied:.2f}", f"{uploaded / copied:.2f}", f"{grown:.1f}")
            )
    return markdown_table(COLUMNS, rows)


def write_adapter(path: Path, size: int) -> None:
    """Write an adapter of one module and about that many random bytes."""
    columns = size // (2 * 4 * 64)
    half = 4 * 64 * columns
    header = json.dumps(
        {
            "q_proj.lora_A.weight": {"dtype": "F32", "shape": [64, columns], "data_offsets": [0, half]},
            "q_proj.lora_B.weight": {
                "dtype": "F32",
                "shape": [columns, 64],
                "data_offsets": [half, 2 * half],
            },
        }
    ).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for begin in range(0, 2 * half, MIB):
            file.write(os.urandom(min(MIB, 2 * half - begin)))
        file.flush()
        os.fsync(file.fileno())  # or whatever is flushed next would have these bytes to wait for as well


def copy_and_hash(path: Path, copy: Path) -> None:
    """What an upload cannot do without: another copy that is safe on disk, and a digest."""
    shutil.copyfile(path, copy)
    with copy.open("rb+") as file:
        os.fsync(file.fileno())
        hashlib.file_digest(file, "sha256")


def seconds_of(work: Callable[[], object]) -> float:
    """By the wall clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_memory(process: psutil.Process) -> int:
    """The largest resident memory in bytes that the process ever had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
