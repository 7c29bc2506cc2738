"""Where the time of a job goes, stage by stage: as its own report tells it."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from fixtures.adapters import write_run

from benchmarks.latency import MODULES, STEPS
from benchmarks.servers import running_server
from benchmarks.written import markdown_table
from nextrapolate import NExtClient
from nextrapolate.methods import make_method
from nextrapolate.schemas import Method, Report, Stage

METHODS: Mapping[str, Method] = {
    "auto": make_method("auto"),
    "next": make_method("next"),
    "next, the paper's preset": make_method("next", preset="paper"),
    "autoregression": make_method("autoregression"),
    "weight-extrapolation": make_method("weight-extrapolation"),
    "relex": make_method("relex"),
}
LATER = tuple(range(160, 351, 10))
"""Steps of the same run when it jumps after every second checkpoint, and asks once more in the end."""
COLUMNS = ("a job by", *(f"{stage.value}, s" for stage in Stage), "peak memory, MB")


def measured(folder: Path, options: argparse.Namespace) -> str:
    """Run a job by each method on a server of its own, and one late in a run of cycles; a row for each."""
    run = write_run(folder / "run", (*STEPS, *LATER), modules=MODULES, rank=16)
    with running_server(folder) as (url, key, _), NExtClient(url, key) as client:
        series = client.create_series("benchmark").id
        for step in STEPS:
            client.put_checkpoint(series, step, run / f"checkpoint-{step}")
        reports = {
            name: client.extrapolate(series, method=method, out=folder / name).report
            for name, method in METHODS.items()
        }
        name, method = next(iter(METHODS.items()))
        reports[f"{name}, after {len(LATER) // 2} jumps"] = after_jumps(client, series, method, run, folder)
    return markdown_table(COLUMNS, [row(name, report) for name, report in reports.items()])


def after_jumps(client: NExtClient, series: str, method: Method, run: Path, folder: Path) -> Report:
    """Jump after every second of the later checkpoints, and return the report of a job at the last one."""
    for number, step in enumerate(LATER):
        if number % 2 == 0:
            jump = client.extrapolate(series, method="weight-extrapolation", out=folder / f"jump-{step}")
            client.record_jump(series, jump.job.steps[-1], jump.job.id)
        client.put_checkpoint(series, step, run / f"checkpoint-{step}")
    return client.extrapolate(series, method=method, out=folder / "after jumps").report


def row(name: str, report: Report) -> tuple[str, ...]:
    """What a report says of its job."""
    seconds = {profile.stage: f"{profile.seconds:.2f}" for profile in report.stages}
    return name, *(seconds[stage] for stage in Stage), f"{report.peak_memory_bytes / 1e6:.0f}"
