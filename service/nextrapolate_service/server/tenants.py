"""`nextrapolate-server tenants`: who uses how much, and how much they may."""

import json
from typing import Annotated

import typer
from pydantic import ByteSize

from nextrapolate_service.server.store_access import DataDir, Json, open_store
from nextrapolate_service.server.tables import print_table
from nextrapolate_store.environment import parse_size
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quota, Usage

tenants = typer.Typer(
    help="Show what tenants use, and set their quotas.", no_args_is_help=True, rich_markup_mode=None
)

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant.")]


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a size: write it like 500GiB") from None


@tenants.command("list")
def list_tenants(data_dir: DataDir = None, as_json: Json = False) -> None:
    """List all tenants that ever had a key, with their use and their quotas."""
    with open_store(data_dir) as operated:
        names = _names(operated.store)
        usages = {name: operated.store.quotas.usage(name) for name in names}
    if as_json:
        typer.echo(json.dumps([{"tenant": name} | _as_json(usage) for name, usage in usages.items()]))
        return
    print_table(
        ("tenant", *(quota.replace("_", " ") for quota in Quota)),
        [(name, *(_shown(quota, use) for quota, use in usage.items())) for name, usage in usages.items()],
    )


@tenants.command("set")
def set_quotas(
    tenant: Tenant,
    size: Annotated[
        int | None,
        typer.Option(
            "--bytes",
            parser=_size,
            metavar="SIZE",
            help="Maximum size of uploads and results, such as 500GiB.",
        ),
    ] = None,
    series: Annotated[int | None, typer.Option(min=0, help="Series.")] = None,
    queued_jobs: Annotated[
        int | None, typer.Option(min=0, help="Maximum number of queued jobs; more are refused.")
    ] = None,
    running_jobs: Annotated[
        int | None, typer.Option(min=0, help="Maximum number of running jobs; more have to wait.")
    ] = None,
    kept_jobs: Annotated[
        int | None,
        typer.Option(min=0, help="Maximum number of jobs, those that have ended and are kept included."),
    ] = None,
    uploads: Annotated[
        int | None, typer.Option(min=0, help="Maximum number of simultaneous uploads.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Give a tenant quotas of its own; quotas that are not named stay as they are."""
    given = {
        Quota.BYTES: size,
        Quota.SERIES: series,
        Quota.QUEUED_JOBS: queued_jobs,
        Quota.RUNNING_JOBS: running_jobs,
        Quota.KEPT_JOBS: kept_jobs,
        Quota.UPLOADS: uploads,
    }
    quotas = {quota: most for quota, most in given.items() if most is not None}
    if not quotas:
        raise typer.BadParameter("give a quota to set, such as --bytes 500GiB")
    with open_store(data_dir) as operated:
        _check_known(tenant, operated.store)
        operated.store.quotas.set(tenant, quotas)
        operated.note("set_quotas", tenant, quotas=quotas)
        usage = operated.store.quotas.usage(tenant)
    typer.echo("\n".join(f"{quota.replace('_', ' ')}: {_shown(quota, use)}" for quota, use in usage.items()))


@tenants.command()
def reset(tenant: Tenant, data_dir: DataDir = None) -> None:
    """Give a tenant the default quotas of all tenants."""
    with open_store(data_dir) as operated:
        _check_known(tenant, operated.store)
        operated.store.quotas.reset(tenant)
        operated.note("reset_quotas", tenant)
    typer.echo(f"the tenant {tenant} no longer has quotas of its own")


def _names(store: Store) -> list[str]:
    """Tenants that ever had a key: there are no others."""
    return sorted({key.tenant for key in store.keys.list()})


def _check_known(tenant: str, store: Store) -> None:
    """Refuse a name that is mistyped: quotas of nobody would look as if they had been set.

    Raises:
        ValueError: no tenant has this name.
    """
    if tenant not in (names := _names(store)):
        there_are = f"the tenants are {', '.join(names)}" if names else "there are none yet"
        raise ValueError(
            f"there is no tenant {tenant!r}: {there_are}; a tenant is created with its first key"
        )


def _as_json(usage: dict[Quota, Usage]) -> dict[str, dict[str, int]]:
    return {quota: {"used": use.used, "limit": use.limit} for quota, use in usage.items()}


def _shown(quota: Quota, use: Usage) -> str:
    if quota is Quota.BYTES:
        return f"{ByteSize(use.used).human_readable()} of {ByteSize(use.limit).human_readable()}"
    return f"{use.used} of {use.limit}"
