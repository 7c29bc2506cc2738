"""The `nextrapolate` command."""

import sys
from contextlib import suppress
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import TypeAdapter

from nextrapolate import console, tables
from nextrapolate.client import NExtClient
from nextrapolate.errors import NextrapolateError, NotFoundError
from nextrapolate.extrapolation import Extrapolation
from nextrapolate.methods import make_method
from nextrapolate.progress import Tracker
from nextrapolate.schemas import HORIZON_STEPS, Job, JobState, Method, MethodInfo, Output, Series
from nextrapolate.watched_jumps import WatchPlan
from nextrapolate.watching import Watcher
from nextrapolate.wire.servers import DEFAULT_URL

app = typer.Typer(
    cls=console.Commands,
    help="Skip RLVR steps: send LoRA checkpoints, get back an extrapolated adapter.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
jobs = typer.Typer(
    help="List, follow, cancel and download jobs.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(jobs, name="jobs")
series = typer.Typer(
    help="List and delete series: runs whose checkpoints were posted.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(series, name="series")

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="DIR|URI", help="a run's folder, several checkpoint folders or URIs, or a series' id"
    ),
]
Until = Annotated[
    int | None, typer.Option(min=0, metavar="STEP", help="use the checkpoints up to this step only")
]
MethodName = Annotated[str, typer.Option(help="see `nextrapolate methods`")]
HorizonSteps = Annotated[
    int | None, typer.Option(help=f"training steps to predict ahead [default: {HORIZON_STEPS}]")
]
Alpha = Annotated[float | None, typer.Option(help="extending coefficient; the default is the method's")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="set any other parameter of the method; repeatable"),
]
Rank = Annotated[
    Literal["same", "grow"],
    typer.Option(
        help="same: the run's own rank, loads in place; grow: a larger rank, exact, for restarts only"
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="folder for the adapter [default: extrapolated-<step> in the run's own folder, or in the "
        "current one for URIs and series]"
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="a job's id")]
SeriesIds = Annotated[list[str], typer.Argument(metavar="SERIES", help="ids of series")]
State = Annotated[JobState | None, typer.Option(help="only jobs in this state")]
Limit = Annotated[int, typer.Option(min=1, help="list at most this many")]
Url = Annotated[
    str | None,
    typer.Option("--url", help=f"the server's address; by default NEXTRAPOLATE_URL, or {DEFAULT_URL}"),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        help="the API key; by default NEXTRAPOLATE_API_KEY, or the key of the server on this machine",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON on stdout")]


def main() -> None:
    """Run the command; what goes wrong becomes a plain message and an exit code.

    0: done. 1: the job failed or was cancelled, or a file on this machine could not be read or written.
    2: bad input: an option, a folder, a key, or what the service refuses. 3: no server answers, or it cannot
    do its part. 130: Ctrl-C.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # A name that the terminal's encoding lacks must not cost the result of a job.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except (NextrapolateError, OSError) as error:
        sys.exit(console.complain(error))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nextrapolate {version('nextrapolate')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Take the options that stand before any subcommand."""


@app.command()
def extrapolate(
    source: Sources,
    until: Until = None,
    method: MethodName = "auto",
    horizon_steps: HorizonSteps = None,
    alpha: Alpha = None,
    settings: Settings = None,
    rank: Rank = "same",
    out: Out = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Predict the adapter that training would reach, and download it."""
    chosen = _method(method, horizon_steps, alpha, settings)
    with NExtClient(url, api_key) as client, console.progress_display(url) as on_progress:
        result = client.extrapolate(
            source, method=chosen, until=until, out=out, output=Output(rank=rank), on_progress=on_progress
        )
    if as_json:
        typer.echo(TypeAdapter(Extrapolation).dump_json(result))
    else:
        console.show_extrapolation(result)


@app.command()
def backtest(
    source: Sources,
    at: Annotated[
        int,
        typer.Option(min=0, metavar="STEP", help="the origin: methods see the checkpoints up to this step"),
    ],
    horizon_steps: Annotated[
        int, typer.Option(min=1, help="methods predict the checkpoint this many steps later")
    ] = HORIZON_STEPS,
    methods: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help="methods to score; all of them by default; repeatable"),
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Score every method on a part of the run whose checkpoints are known."""
    names = [name.strip() for group in methods for name in group.split(",")] if methods else None
    with NExtClient(url, api_key) as client, console.progress_display(url) as on_progress:
        comparison = client.backtest(
            source, at=at, horizon_steps=horizon_steps, methods=names, on_progress=on_progress
        )
    if as_json:
        typer.echo(comparison.model_dump_json())
    else:
        tables.show_comparison(comparison)


@app.command()
def inspect(
    source: Sources, until: Until = None, url: Url = None, api_key: ApiKey = None, as_json: Json = False
) -> None:
    """Show the geometry of a run, and whether extrapolation is likely to pay off."""
    with NExtClient(url, api_key) as client, console.progress_display(url) as on_progress:
        inspection = client.inspect(source, until=until, on_progress=on_progress)
    if as_json:
        typer.echo(inspection.model_dump_json())
    else:
        tables.show_inspection(inspection)


@app.command("watch")
def watch_folder(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="where a trainer writes PEFT checkpoints")],
    jump_at: Annotated[int, typer.Option(min=1, metavar="STEP", help="jump from this step on")],
    jump_every: Annotated[int | None, typer.Option(min=1, help="then jump again every so many steps")] = None,
    method: MethodName = "auto",
    horizon_steps: HorizonSteps = None,
    alpha: Alpha = None,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="folder for the adapters [default: DIR]")] = None,
    every: Annotated[float, typer.Option(min=0.01, help="seconds between two checks of DIR")] = 5.0,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Post the checkpoints of any trainer, jump on schedule, and say how to restart from there."""
    plan = WatchPlan(_method(method, horizon_steps, alpha, settings), jump_at, jump_every, out or folder)
    with NExtClient(url, api_key) as client:
        made_all = Watcher(client, folder, plan, tell=typer.echo).run(every)
    if not made_all:
        raise typer.Exit(console.FAILED)


@app.command()
def methods(url: Url = None, api_key: ApiKey = None, as_json: Json = False) -> None:
    """List the methods that the server runs, with their parameters."""
    with NExtClient(url, api_key) as client:
        found = client.methods()
    if as_json:
        typer.echo(TypeAdapter(list[MethodInfo]).dump_json(found))
    else:
        console.show_methods(found)


@jobs.command("list")
def list_jobs(
    state: State = None, limit: Limit = 20, url: Url = None, api_key: ApiKey = None, as_json: Json = False
) -> None:
    """List jobs, newest first."""
    with NExtClient(url, api_key) as client:
        found = client.list_jobs(state=state, limit=limit + 1)  # one more tells whether there are more
        shown = found[:limit]
        runs = {} if as_json else _names_of_runs(client, shown)
    if as_json:
        typer.echo(TypeAdapter(list[Job]).dump_json(shown))
    else:
        console.show_jobs(shown, runs, more=len(found) > limit)


@jobs.command()
def show(job_id: JobId, url: Url = None, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Show the current state of a job."""
    with NExtClient(url, api_key) as client:
        _print_job(client.get_job(job_id), as_json)


@jobs.command()
def cancel(job_id: JobId, url: Url = None, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Cancel a job."""
    with NExtClient(url, api_key) as client:
        _print_job(client.cancel(job_id), as_json)


@jobs.command()
def watch(job_id: JobId, url: Url = None, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Follow a job until it ends, even if the server restarts."""
    with NExtClient(url, api_key) as client:
        with console.progress_display(url, job_id) as on_progress:
            job = client.wait(job_id, on_event=Tracker(on_progress, uploads=False, downloads=False).event)
        _print_job(job, as_json)


@jobs.command()
def download(
    job_id: JobId,
    out: Annotated[Path, typer.Option(help="folder for its files; it must be empty, or not exist yet")],
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Download the result of a job that has succeeded: the adapter with its report, or the report alone."""
    with NExtClient(url, api_key) as client:
        path = client.download(job_id, out)
        console.show_download(client.get_job(job_id), path)


@series.command("list")
def list_series(limit: Limit = 20, url: Url = None, api_key: ApiKey = None, as_json: Json = False) -> None:
    """List series, newest first."""
    with NExtClient(url, api_key) as client:
        found = client.list_series(limit=limit + 1)  # one more tells whether there are more
    shown = found[:limit]
    if as_json:
        typer.echo(TypeAdapter(list[Series]).dump_json(shown))
    else:
        console.show_series(shown, more=len(found) > limit)


@series.command("delete")
def delete_series(series_ids: SeriesIds, url: Url = None, api_key: ApiKey = None) -> None:
    """Delete series. Their jobs stay, and so do the files that a job or another series still needs."""
    with NExtClient(url, api_key) as client:
        for series_id in series_ids:
            client.delete_series(series_id)
            typer.echo(f"deleted {series_id}")


def _names_of_runs(client: NExtClient, jobs: list[Job]) -> dict[str, str]:
    """Ask for the names of the series that jobs are over, each once; a series may be gone before its jobs."""
    names = {}
    for series_id in dict.fromkeys(job.series for job in jobs if job.series):
        with suppress(NotFoundError):
            names[series_id] = client.get_series(series_id).name
    return names


def _method(name: str, horizon_steps: int | None, alpha: float | None, settings: list[str] | None) -> Method:
    parameters: dict[str, Any] = _parsed(settings or [])
    given = {"horizon_steps": horizon_steps, "alpha": alpha}
    for parameter, value in given.items():
        if value is not None:
            if parameter in parameters:
                option = f"'--{parameter.replace('_', '-')}'"
                raise typer.BadParameter(
                    f"--set gives {parameter} as well: give it only once", param_hint=option
                )
            parameters[parameter] = value
    return make_method(name, **parameters)


def _parsed(settings: list[str]) -> dict[str, str]:
    """Tell names from values, which stay text: the method's schema knows their types."""
    parsed = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"write name=value, not {setting!r}", param_hint="'--set'")
        parsed[name] = value
    return parsed


def _print_job(job: Job, as_json: bool) -> None:
    if as_json:
        typer.echo(job.model_dump_json())
    else:
        console.show_job(job)
