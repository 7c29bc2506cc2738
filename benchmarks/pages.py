"""What people wait for: the size of a 7B-shaped run's report, how soon it opens, how soon pages are made.

    python -m benchmarks.pages [--jobs 10000] [--layers 28] [--repeats 20] [--write]

The report is a whole job's, over fifteen checkpoints with the modules of a decoder of 28 layers; its matrices
are small, since a report does not grow with them. The pages are asked of the service in this process, on a
real Redis with --jobs jobs in it. Prints two Markdown tables, times in milliseconds.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from fastapi.testclient import TestClient
from playwright.sync_api import sync_playwright
from safetensors.torch import save_file

from benchmarks.written import add_write_option, markdown_table, write_section
from nextrapolate.methods import make_method
from nextrapolate.schemas import REPORT_PAGE, CheckpointRef, JobCreate, JobState, Report
from nextrapolate_service.app import create_app
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.errors import StoreUnavailable
from nextrapolate_store.keys import new_key
from nextrapolate_store.records import FileSource, InputAdapter, JobInputs
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_worker import pipeline
from nextrapolate_worker.messages import Start
from nextrapolate_worker.rendering import report_page, warm_up
from nextrapolate_worker.settings import Computing

ATTENTION = tuple(f"self_attn.{letter}_proj" for letter in "qkvo")
KINDS = (*ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
STEPS = tuple(range(10, 160, 10))
RANK, WIDTH = 8, 48
CONFIG = f'{{"peft_type": "LORA", "base_model_name_or_path": "base", "r": {RANK}, "lora_alpha": {RANK}}}'
BROWSER = {"Accept": "text/html"}
PAGES = {
    "/": "all jobs, newest first",
    "/?state=queued": "jobs in one state",
    "/?text=run-9": "jobs with a word in their run, label, method or id",
    "/?text=nowhere": "the same, where none of those that are looked at has it",
    "/jobs/{job}": "one job",
    "/methods": "all methods",
}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--repeats", type=int, default=20)
    add_write_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = write_run(folder / "run", arguments.layers)
        page = make_report(inputs, folder / "result")
        report = report_table(page, arguments.layers * len(KINDS), arguments.repeats)
        with many_jobs(folder, inputs, arguments.jobs) as browser:
            pages = pages_table(browser, arguments.jobs, arguments.repeats)
    measured = f"{report}\n\n{pages}\n\nLoad average then: {os.getloadavg()[0]:.1f}."
    print(measured)
    if arguments.write:
        write_section("pages", measured)


def report_table(page: Path, modules: int, repeats: int) -> str:
    """How large a report is, and how long it takes to make and to open."""
    rows = (
        ("drawn, in CPU time, with its charts: median", f"{drawing_ms(page, repeats):.0f} ms"),
        ("opened in headless Chromium, until loaded: median", f"{opening_ms(page, repeats):.0f} ms"),
    )
    size = f"{page.stat().st_size / 1e6:.2f} MB"
    return markdown_table((f"report.html of {modules} modules, {len(STEPS)} checkpoints", size), rows)


def pages_table(browser: TestClient, jobs: int, repeats: int) -> str:
    """How long the service takes to answer for a page, first byte to last."""
    job = browser.get("/jobs", headers={"Accept": "application/json"}).json()["items"][0]["id"]
    rows = []
    for path, what in PAGES.items():
        times = timed(partial(browser.get, path.format(job=job)), repeats)
        rows.append((what, f"`{path}`", f"{statistics.median(times):.0f}", f"{max(times):.0f}"))
    columns = (f"page, with {jobs} jobs in the store", "address", "median, ms", f"slowest of {repeats}, ms")
    return markdown_table(columns, rows)


def write_run(folder: Path, layers: int) -> JobInputs:
    """Write checkpoints of a run that drifts steadily, with a little noise."""
    generator = torch.Generator().manual_seed(0)
    names = [f"base_model.model.model.layers.{layer}.{kind}" for layer in range(layers) for kind in KINDS]
    ways = {name: torch.randn(2, WIDTH, RANK, generator=generator) for name in names}
    adapters = []
    for step in STEPS:
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        tensors = {}
        for name, (way, basis) in ways.items():
            noise = 0.1 * torch.randn(WIDTH, RANK, generator=generator)
            tensors[f"{name}.lora_B.weight"] = step / 1000 * (way + noise)
            tensors[f"{name}.lora_A.weight"] = (basis / WIDTH**0.5).T.contiguous()
        save_file(tensors, checkpoint / "adapter_model.safetensors")
        (checkpoint / "adapter_config.json").write_text(CONFIG)
        files = (
            FileSource("file", str(checkpoint / name))
            for name in ("adapter_model.safetensors", "adapter_config.json")
        )
        adapters.append(InputAdapter(step, *files))
    return JobInputs(tuple(adapters))


def make_report(inputs: JobInputs, folder: Path) -> Path:
    """Run a whole job, and give its page."""
    folder.mkdir()
    request = JobCreate(series="run", method=make_method("auto"))
    work = Start(
        job="job",
        fence=1,
        tenant="default",
        request=request,
        inputs=inputs,
        data_dir=folder,
        folder=folder,
        stages=folder.parent / "stages",
        computing=Computing(device="cpu", threads=1),
    )
    pipeline.run(work, lambda stage, fraction: None)
    return folder / REPORT_PAGE


def drawing_ms(page: Path, repeats: int) -> float:
    """CPU time that a worker's child spends on the page, its charts included, once it is warm."""
    report = Report.model_validate_json(page.with_suffix(".json").read_bytes())
    warm_up()
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        report_page(report)
        times.append(1000 * (time.process_time() - begun))
    return float(statistics.median(times))


def opening_ms(page: Path, repeats: int) -> float:
    """Time from the start of the navigation to the end of the load event, in headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        times = []
        for _ in range(repeats):
            tab = browser.new_page()
            tab.goto(page.as_uri())
            times.append(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
            tab.close()
        browser.close()
    return float(statistics.median(times))


@contextmanager
def many_jobs(folder: Path, inputs: JobInputs, count: int) -> Iterator[TestClient]:
    """Give a browser that is signed in, at a service with many jobs."""
    redis = EmbeddedRedis.prepare(find_redis_server(None), folder)
    command = [*redis.command, "--appendfsync", "no", "--loglevel", "warning"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            settings = StoreSettings(redis.url, folder / "data")
            store = opened(settings)
            key_file = folder / "key"
            key_file.write_text(new_key("bench"))
            for number in range(count):
                submit(store, inputs, number)
            with TestClient(
                create_app(ServiceSettings(settings, key_file, rate_limit=None)), headers=BROWSER
            ) as browser:
                browser.post("/login", data={"key": key_file.read_text()})
                yield browser
        finally:
            process.terminate()


def opened(settings: StoreSettings) -> Store:
    """Wait for Redis."""
    while True:
        try:
            return Store.open(settings)
        except StoreUnavailable:
            time.sleep(0.1)


def submit(store: Store, inputs: JobInputs, number: int) -> None:
    """Submit a job of a run of its own; every other one is cancelled."""
    uris = [
        CheckpointRef(uri=f"file:///runs/{number}/checkpoint-{adapter.step}", step=adapter.step)
        for adapter in inputs.checkpoints
        if isinstance(adapter.model, FileSource)
    ]
    request = JobCreate(checkpoints=uris, labels={"run": f"run-{number}"})
    job = store.jobs.submit("bench", request, inputs, idempotency_key=None, body_digest="")
    if number % 2:
        assert store.jobs.cancel("bench", job.id).state is JobState.CANCELLED


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds of each call, after a first one that fills caches."""
    work()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - begun))
    return times


if __name__ == "__main__":
    main()
