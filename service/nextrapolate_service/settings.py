"""Settings of the API, read from the environment once, at its start."""

import logging
import os
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Self

from nextrapolate_store.environment import read_count, read_list, read_number, read_size, read_text
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.tenants import Quotas

_log = logging.getLogger(__name__)

_GIB = 1 << 30

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class RateLimit:
    """How often one key may call: `at_once` requests after a rest, `per_second` of them for ever."""

    per_second: float
    at_once: int

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.at_once < 1:
            raise ValueError(
                f"a rate limit of {self.per_second:g} requests per second and {self.at_once} at once would "
                "refuse everybody: give positive numbers, or 0 requests per second for no limit"
            )

    @classmethod
    def from_environment(cls) -> Self | None:
        """Read NEXTRAPOLATE_RATE_LIMIT, requests a second, and NEXTRAPOLATE_RATE_BURST, requests at once.

        Raises:
            ValueError: one of them is not what it should be.
        """
        per_second = read_number("NEXTRAPOLATE_RATE_LIMIT", _GENEROUS.per_second, least=0)
        at_once = read_count("NEXTRAPOLATE_RATE_BURST", _GENEROUS.at_once, least=1)
        return cls(per_second, at_once) if per_second else None


_THIS_MACHINE = (ip_network("127.0.0.1"), ip_network("::1"))

_GENEROUS = RateLimit(per_second=200, at_once=2000)
"""Stops a loop that has run wild, and neither a trainer that posts a whole run nor a page that polls."""


@dataclass(frozen=True)
class ServiceSettings:
    """What `create_app` needs to know.

    Attributes:
        store: where jobs and blobs are.
        api_key_file: file with a key that is let in without having been created, `nx_<id>_<secret>`; its id
            is the name of its tenant.
        file_roots: folders below which `file://` URIs may point; none refuses all of them.
        s3_buckets: buckets that `s3://` URIs may name; none refuses all of them.
        hub_endpoint: the Hub that `hf://` URIs are about.
        max_upload_bytes: largest adapter_model.safetensors that is taken.
        disk_reserve_bytes: free space below which nothing new is accepted; None means 2 GiB or 5 % of the
            disk, whichever is more.
        reconcile_seconds: pause between two passes of the reconciler.
        rate_limit: how often one key may call; None is no limit.
        quotas: how much a tenant may use that has no quotas of its own.
        webhook_networks: networks that are not public and that webhooks may lie in all the same.
        webhook_pauses: seconds between the attempts to tell a webhook; after the last one it is given up.
        audit_days: how long the audit log is kept.
        event_streams: how many streams of events one tenant may have open in one process.
        trusted_proxies: whose X-Forwarded-For and X-Forwarded-Proto are believed.
    """

    store: StoreSettings
    api_key_file: Path | None = None
    file_roots: tuple[Path, ...] = ()
    s3_buckets: frozenset[str] = frozenset()
    hub_endpoint: str = "https://huggingface.co"
    max_upload_bytes: int = 16 * _GIB
    disk_reserve_bytes: int | None = None
    reconcile_seconds: float = 2.0
    rate_limit: RateLimit | None = _GENEROUS
    quotas: Quotas = field(default_factory=Quotas)
    webhook_networks: tuple[Network, ...] = ()
    webhook_pauses: tuple[float, ...] = (5, 30, 300, 1800, 7200, 18000, 36000)
    audit_days: int = 400
    event_streams: int = 200
    trusted_proxies: tuple[Network, ...] = _THIS_MACHINE

    @classmethod
    def from_environment(cls) -> Self:
        """Read NEXTRAPOLATE_API_KEY_FILE, _FILE_ROOTS, _S3_BUCKETS, _HUB_ENDPOINT and so on.

        NEXTRAPOLATE_FILE_ROOTS is a list with the separator of PATH; _S3_BUCKETS, _WEBHOOK_NETWORKS and
        _TRUSTED_PROXIES are lists with commas; a proxy on this machine is always trusted. The store's
        settings, the rate limit and the quotas are read, too.

        Raises:
            ValueError: one that is needed is not set, or one is not what it should be.
        """
        key_file = os.environ.get("NEXTRAPOLATE_API_KEY_FILE")
        return cls(
            store=StoreSettings.from_environment(),
            api_key_file=Path(key_file) if key_file else None,
            file_roots=_read_file_roots(),
            s3_buckets=frozenset(read_list("NEXTRAPOLATE_S3_BUCKETS")),
            hub_endpoint=read_text(
                "NEXTRAPOLATE_HUB_ENDPOINT", cls.hub_endpoint, r"https?://[^/\s]+.*", "https://huggingface.co"
            ),
            disk_reserve_bytes=read_size("NEXTRAPOLATE_DISK_RESERVE_BYTES", cls.disk_reserve_bytes),
            rate_limit=RateLimit.from_environment(),
            quotas=Quotas.from_environment(),
            webhook_networks=_read_networks("NEXTRAPOLATE_WEBHOOK_NETWORKS"),
            audit_days=read_audit_days(),
            event_streams=read_count("NEXTRAPOLATE_EVENT_STREAMS", cls.event_streams, least=1),
            trusted_proxies=(*_THIS_MACHINE, *_read_networks("NEXTRAPOLATE_TRUSTED_PROXIES")),
        )


def read_audit_days() -> int:
    """Read NEXTRAPOLATE_AUDIT_DAYS, which operators' commands need alone.

    Raises:
        ValueError: it is no number of days.
    """
    return read_count("NEXTRAPOLATE_AUDIT_DAYS", ServiceSettings.audit_days, least=1)


def _read_file_roots() -> tuple[Path, ...]:
    roots = tuple(map(Path, read_list("NEXTRAPOLATE_FILE_ROOTS", os.pathsep)))
    for root in roots:
        if not root.is_absolute():
            raise ValueError(
                f"NEXTRAPOLATE_FILE_ROOTS: {str(root)!r} is not an absolute path; write folders such as "
                f"/runs, separated by {os.pathsep!r}"
            )
        if not root.is_dir():  # it may be mounted later
            _log.warning("NEXTRAPOLATE_FILE_ROOTS: there is no folder %s yet", root)
    return roots


def _read_networks(variable: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(name) for name in read_list(variable))
    except ValueError as error:
        raise ValueError(
            f"{variable}: {error}; write addresses or networks such as 172.18.0.0/16, separated by commas"
        ) from None
