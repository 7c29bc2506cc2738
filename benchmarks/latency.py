"""What a job costs beside its numerics: the queue, the child process, the files, and asking how far it is.

A worker starts the next job's process when a job ends. A job that comes right after another waits for the
rest of that start; one that finds the worker idle does not.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from fixtures.adapters import write_run

from benchmarks.models import checkpoints_of
from benchmarks.servers import running_server
from benchmarks.written import markdown_table
from nextrapolate import Extrapolation, NExtClient
from nextrapolate.methods import make_method
from nextrapolate.schemas import Method
from nextrapolate_numerics import GateThresholds, Trajectory, backtest, extend, extract
from nextrapolate_worker.methods import numerics_method

METHODS = ("autoregression", "auto")
IDLE_SECONDS = 5.0
"""Enough to start a process that has imported torch, on a busy machine, too."""

STEPS = tuple(range(10, 151, 10))
KINDS = {
    "self_attn.q_proj": (128, 128),
    "self_attn.k_proj": (64, 128),
    "self_attn.v_proj": (64, 128),
    "self_attn.o_proj": (128, 128),
    "mlp.gate_proj": (344, 128),
    "mlp.up_proj": (344, 128),
    "mlp.down_proj": (128, 344),
}
MODULES = {f"model.layers.{layer}.{kind}": shape for layer in range(4) for kind, shape in KINDS.items()}
COLUMNS = (
    "method", "worker before", "numerics alone, s", "job, s", "over it, s", "until taken, s", "its stages, s",
    "until told and fetched, s",
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen."""
    parser.add_argument("--repeats", type=int, default=7, help="jobs of each method; the median is shown")


def measured(folder: Path, options: argparse.Namespace) -> str:
    """Run jobs on a server of its own; gives a table with a row for each method."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))  # a worker's default
    run = write_run(folder / "run", STEPS, modules=MODULES, rank=16)
    rows = []
    with running_server(folder) as (url, key, _), NExtClient(url, key) as client:
        series = client.create_series("benchmark").id
        for step in STEPS:
            client.put_checkpoint(series, step, run / f"checkpoint-{step}")
        for name in METHODS:
            method = make_method(name)
            alone = [seconds_alone(run, method, folder / "alone") for _ in range(options.repeats + 1)][1:]
            for before, idle_seconds in (("idle", IDLE_SECONDS), ("busy", 0.0)):
                jobs = []
                for _ in range(options.repeats):
                    time.sleep(idle_seconds)
                    jobs.append(job(client, series, method, folder / "result"))
                rows.append((name, before, *columns(alone, jobs)))
    return markdown_table(COLUMNS, rows)


def columns(alone: Sequence[float], jobs: Sequence[tuple[float, Extrapolation]]) -> list[str]:
    """The medians, and where the time of a job goes."""
    bare = statistics.median(alone)
    whole = statistics.median(seconds for seconds, _ in jobs)
    waited, worked = [], []
    for _, result in jobs:
        assert result.job.started_at is not None
        waited.append((result.job.started_at - result.job.created_at).total_seconds())
        worked.append(sum(stage.seconds for stage in result.report.stages))
    parts = statistics.median(waited), statistics.median(worked)
    return [f"{seconds:.2f}" for seconds in (bare, whole, whole - bare, *parts, whole - sum(parts))]


def seconds_alone(run: Path, method: Method, out: Path) -> float:
    """Time the numerics of a job, from the files of the run to those of the adapter."""
    out.mkdir(exist_ok=True)
    started = time.perf_counter()
    files = checkpoints_of(run)
    algorithm = numerics_method(method)
    extraction = extract(Trajectory.open(files), algorithm, method.horizon_steps, geometry=True)
    update = algorithm.fit(extraction, method.horizon_steps)
    scores = backtest(algorithm, extraction, method.horizon_steps)
    gate = GateThresholds(0.0, 0.0)
    extend(extraction, update, alpha=method.alpha, gate=gate, backtest=scores, folder=out)
    return time.perf_counter() - started


def job(client: NExtClient, series: str, method: Method, out: Path) -> tuple[float, Extrapolation]:
    """Time a job, from the request to the files of its result."""
    started = time.perf_counter()
    result = client.extrapolate(series, method=method, out=out / str(time.time_ns()))
    return time.perf_counter() - started, result
