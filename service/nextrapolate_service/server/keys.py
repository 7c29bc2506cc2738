"""`nextrapolate-server keys`: who may call, for which tenant, to do what."""

import json
from datetime import datetime
from typing import Annotated, Any

import typer

from nextrapolate_service.server.store_access import DataDir, Json, open_store
from nextrapolate_service.server.tables import print_table
from nextrapolate_store.keys import KeyRecord, Scope

keys = typer.Typer(
    help="Create, list and revoke API keys of a running server.", no_args_is_help=True, rich_markup_mode=None
)


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(help="The tenant whose series and jobs the key gives access to.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            metavar="SCOPE",
            help="What the key allows: read, write (includes read) or metrics; repeatable. [default: write]",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="A name for the key, to recognise it by.")] = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Create a key and show it, this once: only a digest of it is kept."""
    with open_store(data_dir) as operated:
        record, text = operated.store.keys.create(tenant, scope or [Scope.WRITE], name)
        operated.note("create_key", tenant, ids={"key_id": record.id}, scopes=sorted(record.scopes))
    if as_json:
        typer.echo(json.dumps(_as_json(record) | {"key": text}))
        return
    typer.echo(text)
    opens = " and ".join(sorted(record.scopes))
    typer.echo(
        f"key {record.id} of tenant {tenant}, scope {opens}: keep it, it cannot be shown again", err=True
    )


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only the keys of this tenant.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List all keys, including revoked ones, oldest first."""
    with open_store(data_dir) as operated:
        found = [key for key in operated.store.keys.list() if tenant in (None, key.tenant)]
    if as_json:
        typer.echo(json.dumps([_as_json(key) for key in found]))
        return
    print_table(
        ("key", "tenant", "name", "scopes", "created", "last used", "state"),
        [
            (
                *(key.id, key.tenant, key.name, " ".join(sorted(key.scopes))),
                *(_day(key.created_at), _day(key.used_at)),
                f"revoked {_day(key.revoked_at)}" if key.revoked_at else "active",
            )
            for key in found
        ],
    )


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, the part after nx_.")],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Refuse a key from now on, permanently; requests in progress still complete."""
    with open_store(data_dir) as operated:
        record = operated.store.keys.revoke(key_id)
        operated.note("revoke_key", record.tenant, ids={"key_id": record.id})
    if as_json:
        typer.echo(json.dumps(_as_json(record)))
    else:
        typer.echo(f"key {record.id} of tenant {record.tenant} is no longer accepted")


def _as_json(key: KeyRecord) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at.isoformat(),
        "used_at": key.used_at.isoformat() if key.used_at else None,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }


def _day(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d}" if when else "-"
