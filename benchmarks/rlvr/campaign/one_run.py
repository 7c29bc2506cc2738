"""One run of the campaign, from the base model or from a step of another run."""

import shutil
from collections.abc import Callable
from pathlib import Path

from demo.evaluate import Accuracy
from demo.task import HELD_OUT

from benchmarks.rlvr.bases import base_of
from benchmarks.rlvr.campaign.plan import Planned
from benchmarks.rlvr.record import ADAPTER, RECORD, Record, newest_checkpoint, step_of
from benchmarks.rlvr.run import train
from benchmarks.rlvr.tasks import TASKS
from benchmarks.written import day_and_machine
from nextrapolate import NExtClient
from nextrapolate.folders import find_checkpoints
from nextrapolate_trainer.state import RunState


def finished(run: Planned, folder: Path) -> bool:
    """Tell whether the run has reached its last step."""
    newest = newest_checkpoint(folder / run.name)
    return newest is not None and step_of(newest) >= run.settings.steps


def make(
    run: Planned,
    folder: Path,
    client: NExtClient,
    on_step: Callable[[int, Accuracy], None],
    held_out: int = HELD_OUT,
) -> Record:
    """Make the run, or what is missing of it, in its place in `folder`, and return its record."""
    out, task = folder / run.name, TASKS[run.settings.task]
    if run.start is not None and newest_checkpoint(out) is None:
        branch(run, folder / run.start.name, out, client)
    return train(run.settings, task, base_of(task), out, on_step, held_out, client)


def branch(run: Planned, start: Path, out: Path, client: NExtClient) -> None:
    """Begin a run where another one was: with its checkpoints, its accuracies, and a series of them."""
    shutil.rmtree(out, ignore_errors=True)
    seen = find_checkpoints(start, until=run.settings.branches_at)
    series = client.create_series(out.name, lora_config=seen[-1].config()).id
    for found in seen:
        client.put_checkpoint(series, found.step, found.folder)
    for found in seen[:-1]:
        kept = out / found.folder.name
        kept.mkdir(parents=True)
        for name in ADAPTER:
            shutil.copy(found.folder / name, kept / name)
    shutil.copytree(seen[-1].folder, out / seen[-1].folder.name)
    RunState(step=run.settings.branches_at, series=series).write(out / seen[-1].folder.name)
    rows = [row for row in Record.read(start / RECORD).rows if row.step <= run.settings.branches_at]
    Record(run.settings, rows, seconds=rows[-1].seconds, made=day_and_machine()).write(out)
