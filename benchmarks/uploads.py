"""What an upload costs: the memory of the API, and the time beside that of a copy and a hash."""

import argparse
import hashlib
import json
import os
import shutil
import struct
import time
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
        write_adapter(path, MIB)
        client.put_file(series, 0, "adapter_model.safetensors", path)  # so that every part has been imported
        for step in range(1, options.rounds + 1):
            write_adapter(path, options.mib * MIB)
            copied = seconds_to_copy_and_hash(path, folder / "copy")
            before = peak_memory(api)
            started = time.perf_counter()
            client.put_file(series, step, "adapter_model.safetensors", path)
            uploaded = time.perf_counter() - started
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


def seconds_to_copy_and_hash(path: Path, copy: Path) -> float:
    """What an upload cannot do without: another copy that is safe on disk, and a digest."""
    started = time.perf_counter()
    shutil.copyfile(path, copy)
    with copy.open("rb+") as file:
        os.fsync(file.fileno())
        hashlib.file_digest(file, "sha256")
    seconds = time.perf_counter() - started
    copy.unlink()
    return seconds


def peak_memory(process: psutil.Process) -> int:
    """The largest resident memory in bytes that the process ever had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
