"""Where the store lives, and how patient it is."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from redis.connection import parse_url

from nextrapolate_store.environment import read_count, read_number
from nextrapolate_store.retention import Retention


@dataclass(frozen=True)
class StoreSettings:
    """What `Store.open` needs to know.

    Every process of one deployment is given the same settings: the API's reconcilers and the workers' claims
    have to agree on the length of a lease and on the number of attempts.
    """

    redis_url: str
    """`redis://`, `rediss://` or `unix://` URL, password included."""
    data_dir: Path
    """Folder that holds all that outlives Redis, and every file; shared by every API and worker process."""
    lease_seconds: float = 30
    """How long a claim lives without a beat."""
    max_attempts: int = 3
    """How often a job may be claimed before it fails."""
    retention: Retention = field(default_factory=Retention)
    """How long what nobody needs any more is kept."""

    def __post_init__(self) -> None:
        if self.lease_seconds <= 0:
            raise ValueError(f"lease_seconds is {self.lease_seconds}: give a positive number of seconds")
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts is {self.max_attempts}: give at least 1")

    @classmethod
    def from_environment(cls) -> "StoreSettings":
        """Read NEXTRAPOLATE_REDIS_URL, _DATA_DIR, _LEASE_SECONDS, _MAX_ATTEMPTS and what `Retention` reads.

        Raises:
            ValueError: one that is needed is not set, or one is not what it should be.
        """
        return cls(
            redis_url=_read_redis_url(),
            data_dir=Path(_required("NEXTRAPOLATE_DATA_DIR", "the folder that holds records and files")),
            lease_seconds=read_number("NEXTRAPOLATE_LEASE_SECONDS", cls.lease_seconds),
            max_attempts=read_count("NEXTRAPOLATE_MAX_ATTEMPTS", cls.max_attempts, least=1),
            retention=Retention.from_environment(),
        )


def _read_redis_url() -> str:
    url = _required("NEXTRAPOLATE_REDIS_URL", "the URL of the Redis that holds the jobs")
    try:
        parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:  # whose text may show what stands before a / in a password
        raise ValueError(
            "NEXTRAPOLATE_REDIS_URL is not the URL of a Redis: write it as "
            "redis://user:password@host:6379/0, / @ : and # within a password as %2F %40 %3A %23"
        ) from None
    return url


def _required(variable: str, meaning: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise ValueError(
            f"{variable} is not set: set it to {meaning}, or start nextrapolate-server, which does"
        )
    return value
