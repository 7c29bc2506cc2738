"""How an operator's commands reach the store of a server that runs."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from nextrapolate_service.audit import AuditLog
from nextrapolate_service.server.data_folder import DEFAULT_DATA_DIR
from nextrapolate_service.server.redis import running_redis_url
from nextrapolate_service.settings import read_audit_days
from nextrapolate_store.errors import StoreError
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a running nextrapolate-server; by default NEXTRAPOLATE_REDIS_URL, else "
        "nextrapolate-data.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@dataclass(frozen=True)
class OperatedStore:
    """An open store, and the log of what an operator does to it."""

    store: Store
    _log: AuditLog

    def note(self, did: str, tenant: str, **details: Any) -> None:
        """Note in the audit log what the operator did."""
        try:
            operator = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:  # in a container, say
            operator = str(os.getuid())
        self._log.note(operator=operator, tenant=tenant, did=did, **details)


@contextmanager
def open_store(data_dir: Path | None) -> Iterator[OperatedStore]:
    """Open the store of the server in `data_dir`, else the one that the environment names.

    What goes wrong becomes a plain message and exit code 1.
    """
    try:
        settings = _settings(data_dir)
        store = Store.open(settings)
        try:
            yield OperatedStore(store, AuditLog(settings.data_dir, read_audit_days()))
        finally:
            store.close()
    except (StoreError, ValueError, OSError) as error:
        raise failed(error) from None


def failed(error: Exception) -> typer.Exit:
    """Say what went wrong."""
    typer.echo(f"nextrapolate-server: {error}", err=True)
    for note in getattr(error, "__notes__", ()):
        typer.echo(note, err=True)
    return typer.Exit(1)


def _settings(data_dir: Path | None) -> StoreSettings:
    if data_dir is None and os.environ.get("NEXTRAPOLATE_REDIS_URL"):
        return StoreSettings.from_environment()
    folder = data_dir or DEFAULT_DATA_DIR
    url = running_redis_url(folder)
    if url is None:
        raise ValueError(
            f"no server runs on {folder.absolute()}: start `nextrapolate-server --data-dir {folder}` "
            "first, or set NEXTRAPOLATE_REDIS_URL and NEXTRAPOLATE_DATA_DIR to the same values as for the "
            "API"
        )
    return StoreSettings(url, folder)
