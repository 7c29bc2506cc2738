"""What a job's memory peaks at, beside the size of one checkpoint.

    python -m benchmarks.memory [--models 0.5b ...] [--ranks 16 64] [--checkpoints 5 15 45]
                                [--methods next next-paper ...] [--threads N] [--device cpu] [--folder FOLDER]
                                [--write]

Whole jobs, from files to artifacts, each in a child process as the worker starts it, on synthetic runs in the
shapes of the Qwen2.5 models. The peak is the most resident memory that the process ever had (VmHWM), which
counts the pages of mapped files as well; beside it the most that was its own (RssAnon), looked at every few
milliseconds. Numbers of checkpoints other than the default are measured on the first model alone.

Each checkpoint is a file of its own: factors that are equal would be multiplied once. A series that does not
fit in a third of what is free on the disk is left out, and said so. `next-paper` is `next` by the paper's
preset, trained for two epochs: the others take time alone.
"""

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.models import MODELS, write_series
from benchmarks.written import add_write_option, markdown_table, write_section
from nextrapolate.methods import make_method
from nextrapolate.schemas import REPORT, JobCreate, Report
from nextrapolate_numerics import AdapterFiles
from nextrapolate_store.records import FileSource, InputAdapter, JobInputs
from nextrapolate_worker.messages import Done, Start
from nextrapolate_worker.nursery import Child
from nextrapolate_worker.settings import Computing

COLUMNS = (
    "model", "r", "checkpoints", "method", "one checkpoint, MB", "peak, MB", "its own, MB",
    "3 x one + 500, MB", "peak over that", "seconds",
)  # fmt: skip
DEFAULT_CHECKPOINTS = 15
PAPER: dict[str, object] = {"preset": "paper", "epochs": 2}
MB = 1e6


def main() -> None:
    """Run the jobs and print the table; write it where that is asked for."""
    arguments = _arguments()
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for model in arguments.models:
        for rank in arguments.ranks:
            counts = arguments.checkpoints if model == arguments.models[0] else [DEFAULT_CHECKPOINTS]
            for row in measured(model, rank, counts, arguments):
                rows.append(row)
                print("|", *row, sep=" | ", flush=True)
    text = f"{arguments.threads} threads, {arguments.device}.\n\n{markdown_table(COLUMNS, rows)}"
    print(f"\n{text}")
    if arguments.write:
        write_section("memory" if arguments.device == "cpu" else f"memory-{arguments.device}", text)


def measured(
    model: str, rank: int, counts: list[int], arguments: argparse.Namespace
) -> Iterator[tuple[object, ...]]:
    """A row for each number of checkpoints and each method; one that says so where the disk is too small."""
    shape = MODELS[model]
    size = shape.checkpoint_bytes(rank)
    most = max(counts)
    if most * size > shutil.disk_usage(arguments.folder or tempfile.gettempdir()).free / 3:
        yield (model, rank, "", "", f"{size / MB:.0f}", "not written: no room", "", "", "", "")
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        run = write_series(
            folder / "run", shape.modules(shape.layers), rank=rank, checkpoints=most, step=1 / most
        )
        for count in counts:
            for method in arguments.methods:
                found = peak_of(folder / f"{method}-{count}", inputs_of(run[:count]), method, arguments)
                bar = 3 * size + 500 * MB
                sizes = (size, found.peak, found.own, bar)
                yield (
                    model, rank, count, method, *(f"{each / MB:.0f}" for each in sizes),
                    f"{found.peak / bar:.2f}", f"{found.seconds:.0f}",
                )  # fmt: skip


def inputs_of(checkpoints: Sequence[AdapterFiles]) -> JobInputs:
    """A job's, from files that nobody has uploaded."""
    return JobInputs(
        tuple(
            InputAdapter(files.step, *(FileSource("file", str(path)) for path in (files.model, files.config)))
            for files in checkpoints
        )
    )


@dataclass(frozen=True)
class Peak:
    """Bytes of memory, and how long the job took."""

    peak: int
    own: int
    seconds: float


def peak_of(folder: Path, inputs: JobInputs, method: str, arguments: argparse.Namespace) -> Peak:
    """Run one job in a child process of the worker's."""
    folder.mkdir()
    name, settings = ("next", PAPER) if method == "next-paper" else (method, {})
    request = JobCreate(series="run", method=make_method(name, horizon_steps=20, **settings))
    work = Start(
        job="job",
        fence=1,
        tenant="default",
        request=request,
        inputs=inputs,
        data_dir=folder,
        folder=folder,
        stages=folder.parent / "stages",
        computing=Computing(device=arguments.device, threads=arguments.threads),
    )
    with Child() as child, own_memory(psutil.Process().children()[-1].pid) as own:
        started = time.perf_counter()
        child.start(work)
        answer = None
        while not isinstance(answer, Done):
            answer = child.answer(timeout=1.0)
        seconds = time.perf_counter() - started
    report = Report.model_validate_json((folder / REPORT).read_bytes())
    shutil.rmtree(folder)
    return Peak(report.peak_memory_bytes, max(own), seconds)


@contextmanager
def own_memory(pid: int) -> Iterator[list[int]]:
    """Look at a process's anonymous memory every few milliseconds; gives what has been seen so far."""
    seen, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                return
            if "RssAnon:" in status:
                seen.append(int(status.partition("RssAnon:")[2].split()[0]) << 10)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [model for model in MODELS if model != "tiny"]
    parser.add_argument("--models", choices=MODELS, nargs="+", default=every)
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[5, DEFAULT_CHECKPOINTS, 45])
    parser.add_argument("--methods", nargs="+", default=["next", "autoregression"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where there is room for the series")
    add_write_option(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
