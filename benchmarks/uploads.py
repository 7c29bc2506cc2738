"""What an upload costs: the memory of the API, and the time beside that of copying the file and hashing it.

    python benchmarks/uploads.py [--mib 2048] [--rounds 3] [--folder FOLDER]

Starts a server of its own in a temporary folder below FOLDER, and uploads an adapter of that size through
`NExtClient`, each round with other bytes. Linux only: it reads the peak of the API's memory from /proc.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from nextrapolate import NExtClient

MIB = 1 << 20


def main() -> None:
    """Print one line a round."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where there is room for three such files")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as name,
        running_server(Path(name)) as (url, key, api),
        NExtClient(url, key) as client,
    ):
        series = client.create_series("benchmark").id
        path = Path(name) / "adapter_model.safetensors"
        write_adapter(path, MIB)
        client.put_file(series, 0, "adapter_model.safetensors", path)  # so that every part has been imported
        for step in range(1, arguments.rounds + 1):
            write_adapter(path, arguments.mib * MIB)
            copied = seconds_to_copy_and_hash(path, Path(name) / "copy")
            before = peak_memory(api)
            started = time.perf_counter()
            client.put_file(series, step, "adapter_model.safetensors", path)
            uploaded = time.perf_counter() - started
            grown = (peak_memory(api) - before) / MIB
            print(
                f"{arguments.mib} MiB: uploaded in {uploaded:.1f} s, copied and hashed in {copied:.1f} s, "
                f"ratio {uploaded / copied:.2f}; the API's memory grew by {grown:.1f} MiB"
            )


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


def peak_memory(process: psutil.Process) -> int:
    """The largest resident memory in bytes that the process ever had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


if __name__ == "__main__":
    main()
