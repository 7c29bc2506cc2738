"""Tenants: whoever shares series, jobs and files, and how much of them a tenant may have."""

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Self

from nextrapolate_store.environment import read_count, read_size

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TIB = 1 << 40


def is_tenant(name: str) -> bool:
    """Tell whether this can be the name of a tenant."""
    return _NAME.fullmatch(name) is not None


def checked_tenant(name: str) -> str:
    """Give a tenant's name back: it becomes part of paths and of Redis' keys.

    Raises:
        ValueError: it cannot be one.
    """
    if not is_tenant(name):
        raise ValueError(f"{name!r} is not the name of a tenant: use up to 64 letters, digits, - and _")
    return name


def checked_quota(name: str, most: int) -> int:
    """Give back how much of something a tenant may use.

    Raises:
        ValueError: it is less than nothing.
    """
    if most < 0:
        raise ValueError(f"a quota of {most} {name} is not valid: give 0 or more")
    return most


class Quota(StrEnum):
    """What a tenant's use of is bounded."""

    BYTES = "bytes"
    """Stored files, each counted once: what was uploaded, and what jobs have made."""
    SERIES = "series"
    QUEUED_JOBS = "queued_jobs"
    RUNNING_JOBS = "running_jobs"
    """Never a reason to refuse a job: it waits in the queue."""
    KEPT_JOBS = "kept_jobs"
    """Those that have ended, too, until they are swept: each takes memory of Redis as long as it is kept."""
    UPLOADS = "uploads"
    """At the same time."""


@dataclass(frozen=True)
class Quotas:
    """How much of each a tenant may use; the defaults stop a loop that has run wild, and no work."""

    bytes: int = _TIB
    series: int = 10_000
    queued_jobs: int = 10_000
    running_jobs: int = 100
    kept_jobs: int = 100_000
    uploads: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            checked_quota(field.name, getattr(self, field.name))

    @classmethod
    def from_environment(cls) -> Self:
        """Read NEXTRAPOLATE_QUOTA_BYTES, _SERIES, _QUEUED_JOBS and so on, a variable for each.

        Raises:
            ValueError: one of them is not a whole number, or negative.
        """
        return cls(
            bytes=read_size("NEXTRAPOLATE_QUOTA_BYTES", cls.bytes),
            series=read_count("NEXTRAPOLATE_QUOTA_SERIES", cls.series, least=0),
            queued_jobs=read_count("NEXTRAPOLATE_QUOTA_QUEUED_JOBS", cls.queued_jobs, least=0),
            running_jobs=read_count("NEXTRAPOLATE_QUOTA_RUNNING_JOBS", cls.running_jobs, least=0),
            kept_jobs=read_count("NEXTRAPOLATE_QUOTA_KEPT_JOBS", cls.kept_jobs, least=0),
            uploads=read_count("NEXTRAPOLATE_QUOTA_UPLOADS", cls.uploads, least=0),
        )


@dataclass(frozen=True)
class Usage:
    """How much of one quota a tenant uses, what is on its way among it, and how much it may."""

    used: int
    limit: int
