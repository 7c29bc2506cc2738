"""How the command speaks to people: progress and complaints on stderr, results on stdout."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from typer.core import TyperGroup

from nextrapolate.errors import (
    APIError,
    JobCancelledError,
    JobFailedError,
    NextrapolateError,
    ServiceUnreachable,
)
from nextrapolate.extrapolation import Extrapolation
from nextrapolate.invalid_requests import plain_words
from nextrapolate.methods import label
from nextrapolate.progress import OnProgress, Progress
from nextrapolate.reading import read
from nextrapolate.schemas import Job, MethodInfo, Problem, Series

FAILED, BAD_INPUT, NO_SERVER = 1, 2, 3
_LOWEST = {"minimum": "<=", "exclusiveMinimum": "<"}
_HIGHEST = {"maximum": "<=", "exclusiveMaximum": "<"}
ADVICE = {
    "job-not-found": "`nextrapolate jobs list` lists the existing ones",
    "series-not-found": "`nextrapolate series list` lists the existing ones",
    "route-not-found": "is --url, or NEXTRAPOLATE_URL, right?",
}
"""What helps at a terminal, by the code of a problem, where the service advises a request."""
LINE_EVERY = 10.0
"""Seconds between plain lines of progress within one stage, so that a log stays readable."""


class Commands(TyperGroup):
    """Commands whose complaints about an option are without pydantic's prefix, which Typer leaves there."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = plain_words(error.message)
            raise


@contextmanager
def progress_display(url: str | None, job: str | None = None) -> Iterator[OnProgress]:
    """Show progress while the context lasts; who leaves by Ctrl-C is told how to find the job again.

    Args:
        url: what was given as --url.
        job: its id, where it is known before there is any progress.
    """
    try:
        with _display() as show:

            def show_and_note(progress: Progress) -> None:
                nonlocal job
                job = progress.job or job
                show(progress)

            yield show_and_note
    except KeyboardInterrupt:
        if job:
            at = f" --url {url}" if url else ""
            advice = (
                f"`nextrapolate jobs watch {job}{at}` follows it, `nextrapolate jobs cancel {job}{at}` "
                f"cancels it, `nextrapolate jobs download {job} --out DIR{at}` fetches its result"
            )
            typer.echo(f"job {job} keeps running: {advice}", err=True)
        raise


@contextmanager
def _display() -> Iterator[OnProgress]:
    """One bar on a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.fields[stage]:<8}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=1.0, stage="")

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.fraction, stage=progress.stage, description=progress.message)

        yield show


class _Lines:
    """Writes a line when the stage changes, at the end, and now and then in between."""

    def __init__(self) -> None:
        self._stage = ""
        self._written = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        goes_on = progress.stage == self._stage and progress.fraction < 1
        if goes_on and now - self._written < LINE_EVERY:
            return
        self._stage, self._written = progress.stage, now
        typer.echo(f"{progress.fraction:4.0%}  {progress.stage:<8}  {progress.message}", err=True)


def complain(error: Exception) -> int:
    """Say on stderr what went wrong, and return the exit code that stands for it."""
    typer.echo("\n".join([f"nextrapolate: {_said(error)}", *getattr(error, "__notes__", ())]), err=True)
    match error:
        case JobFailedError() | JobCancelledError():
            return FAILED
        case ServiceUnreachable():
            return NO_SERVER
        case APIError():
            return BAD_INPUT if error.problem.blame == "user" else NO_SERVER
        case NextrapolateError():
            return BAD_INPUT
    return FAILED


def _said(error: Exception) -> str:
    """Say what went wrong, and where the service advises a request, what does the same at a terminal."""
    match error:
        case APIError(problem=Problem(code=code, advice=str()) as problem) if code in ADVICE:
            return f"{problem.fault}: {ADVICE[code]}"
    return str(error)


def show_extrapolation(result: Extrapolation) -> None:
    """Tell where the adapter is, what to think of it, and how to load it."""
    typer.echo(f"adapter  {result.path}")
    reading = read(result.report)
    typer.echo(f"verdict  {reading.headline} {reading.verdict}")
    _show_loading(result.path)
    for warning in result.report.warnings:
        typer.echo(f"note: {warning}")


def show_download(job: Job, path: Path) -> None:
    """Tell where a job's result is now, and how to load it where it is an adapter."""
    typer.echo(f"{'adapter' if job.method else 'report':<7}  {path}")
    if job.method:
        _show_loading(path)


def _show_loading(path: Path) -> None:
    typer.echo(f'load it  PeftModel.from_pretrained(base_model, "{path}")')


def show_methods(methods: list[MethodInfo]) -> None:
    """List methods, each with its paper, the checkpoints it needs, and what its parameters may be."""
    for method in methods:
        paper = f" ({method.paper})" if method.paper else ""
        typer.echo(f"{method.name}: {method.title}{paper}")
        typer.echo(f"  needs at least {method.minimum_checkpoints} checkpoints")
        for name, schema in method.parameters.get("properties", {}).items():
            if name != "name":
                values = _values(name, schema)
                allowed = f" ({values})" if values else ""
                typer.echo(f"  {name} = {schema.get('default')}{allowed}: {schema.get('description', '')}")


def _values(name: str, schema: Mapping[str, Any]) -> str:
    """Say which values a parameter may have, as far as its JSON schema does; null is for the description."""
    if "anyOf" in schema:
        return " or ".join(filter(None, (_values(name, part) for part in schema["anyOf"])))
    if "enum" in schema or "const" in schema:
        return " or ".join(schema.get("enum") or [schema["const"]])
    below = (f"{schema[bound]} {sign} " for bound, sign in _LOWEST.items() if bound in schema)
    above = (f" {sign} {schema[bound]}" for bound, sign in _HIGHEST.items() if bound in schema)
    limits = ("".join(below), "".join(above))
    return name.join(limits) if any(limits) else ""


def show_jobs(jobs: list[Job], runs: Mapping[str, str], *, more: bool) -> None:
    """List jobs, one a line, with the names that runs have; and say on stderr where that is not all."""
    for job in jobs:
        what = label(job.method) if job.method else job.task
        what += "" if job.at is None else f" at {job.at}"
        run = runs.get(job.series or "", "-")
        facts = (job.id, f"{job.state:<10}", f"{job.progress:4.0%}", _when(job.created_at), f"{what:<20}")
        typer.echo("  ".join((*facts, f"steps {_span(job.steps):<9}", run)))
    if not jobs:
        typer.echo("no jobs found", err=True)
    _say_whether_more(len(jobs), more)


def show_series(series: list[Series], *, more: bool) -> None:
    """List series, one a line; and say on stderr where that is not all."""
    for one in series:
        steps = [checkpoint.step for checkpoint in one.checkpoints]
        facts = (one.id, _when(one.created_at), f"{len(steps):3} checkpoints", f"steps {_span(steps):<9}")
        typer.echo("  ".join((*facts, one.name)))
    if not series:
        typer.echo("no series found", err=True)
    _say_whether_more(len(series), more)


def _span(steps: Sequence[int]) -> str:
    return f"{steps[0]}-{steps[-1]}" if steps else "-"


def _say_whether_more(shown: int, more: bool) -> None:
    if more:
        typer.echo(f"there are more than these {shown}: raise --limit to see them", err=True)


def _when(moment: datetime) -> str:
    """Tell a time by this machine's clock, and by which zone it goes."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _pairs(values: Mapping[str, object]) -> list[str]:
    return [f"{name}={value}" for name, value in values.items()]


def show_job(job: Job) -> None:
    """Tell all about a job, one fact a line."""
    facts: dict[str, object] = {
        "job": job.id,
        "state": job.state,
        "stage": job.stage,
        "progress": f"{job.progress:.0%}",
        "queue position": job.queue_position,
        "attempt": job.attempt,
        "task": job.task,
        "method": job.method
        and " ".join((job.method.name, *_pairs(job.method.model_dump(exclude={"name"})))),
        "at step": job.at,
        "steps ahead": job.horizon_steps,
        "methods": None if job.at is None else ", ".join(map(label, job.methods or ())) or "all",
        "steps": " ".join(map(str, job.steps)),
        "series": job.series,
        "read from": " ".join(checkpoint.uri for checkpoint in job.checkpoints or ()) or None,
        "labels": " ".join(_pairs(job.labels)) or None,
        "created": _when(job.created_at),
        "started": job.started_at and _when(job.started_at),
        "finished": job.finished_at and _when(job.finished_at),
        "error": f"{job.error.detail} [{job.error.code}, {job.error.blame}]" if job.error else None,
        "files": " ".join(job.artifacts) or None,
    }
    for name, value in facts.items():
        if value is not None:
            typer.echo(f"{name:<15} {value}")
