"""What environment variables hold. One that holds what cannot be used is named, with what to write instead.

A variable that is empty counts as one that is not set.
"""

import os
import re
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import ByteSize, Field, TypeAdapter, ValidationError

Default = TypeVar("Default")

PREFIX = "NEXTRAPOLATE_"
SETTINGS = frozenset(
    PREFIX + name
    for name in (
        "API_KEY", "API_KEY_FILE", "AUDIT_DAYS", "DATA_DIR", "DEVICE", "DISK_RESERVE_BYTES", "EVENT_STREAMS",
        "FILE_ROOTS", "HUB_ENDPOINT", "HUB_TOKEN", "KEEP_EVENTS_DAYS", "KEEP_JOBS_DAYS", "LEASE_SECONDS",
        "LOG_FORMAT", "LOG_LEVEL", "MAX_ATTEMPTS", "QUOTA_BYTES", "QUOTA_KEPT_JOBS", "QUOTA_QUEUED_JOBS",
        "QUOTA_RUNNING_JOBS", "QUOTA_SERIES", "QUOTA_UPLOADS", "RATE_BURST", "RATE_LIMIT", "REDIS_URL",
        "S3_BUCKETS", "SWEEP_MINUTES", "THREADS", "TRUSTED_PROXIES", "URL", "WEBHOOK_NETWORKS",
    )
)  # fmt: skip
"""Those that any of our processes reads: service, worker, client or trainer."""

_MOST = 1_000_000
_SIZE = re.compile(r"(\d+(\.\d*)?|\.\d+)\s*[A-Za-z]*")
_BYTES = TypeAdapter(ByteSize)


def warnings_of_unknown_settings() -> list[str]:
    """Say of each variable that is named like a setting, and is none, which one may be meant."""
    return [
        f"{name} is no setting"
        + "".join(f": is {meant} meant?" for meant in get_close_matches(name, SETTINGS, n=1))
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in SETTINGS
    ]


def read_number(variable: str, default: float, *, least: float = 0.001) -> float:
    """Read a number.

    Raises:
        ValueError: it holds none, or one that is out of bounds.
    """
    kind = Annotated[float, Field(ge=least, le=_MOST)]
    return float(_read(variable, default, kind, f"a number from {least:g} to {_MOST:,}"))


def read_count(variable: str, default: int, *, least: int) -> int:
    """Read a whole number.

    Raises:
        ValueError: it holds none, or less than the least.
    """
    return int(_read(variable, default, Annotated[int, Field(ge=least)], f"a whole number, {least} or more"))


def read_size(variable: str, default: Default) -> int | Default:
    """Read a number of bytes, which may come with its unit.

    Raises:
        ValueError: it holds none.
    """
    text = os.environ.get(variable, "").strip()
    try:
        return parse_size(text) if text else default
    except ValueError:
        raise ValueError(f"{variable} is {text!r}: write a size such as 2GiB, or a number of bytes") from None


def parse_size(text: str) -> int:
    """Read a number of bytes from all of a text: 2GiB, 1.5 TB, or digits alone.

    Raises:
        ValueError: it is none.
    """
    if not _SIZE.fullmatch(text):  # of "5%" or "1,000" pydantic takes what it knows, and leaves the rest
        raise ValueError(f"{text!r} is not a size")
    try:
        return int(_BYTES.validate_python(text))  # redis-py packs no subclasses of int
    except OverflowError:
        raise ValueError(f"{text!r} is too large") from None


def read_text(variable: str, default: str, pattern: str, wanted: str) -> str:
    """Read one of several words.

    Args:
        variable: the variable.
        default: what it holds where it is not set.
        pattern: regular expression of what it may hold, all of it.
        wanted: the same for a reader.

    Raises:
        ValueError: it holds something else.
    """
    return str(_read(variable, default, Annotated[str, Field(pattern=f"^({pattern})$")], wanted))


def read_list(variable: str, separator: str = ",") -> list[str]:
    """Read what stands between separators, and leave out what is empty."""
    parts = os.environ.get(variable, "").split(separator)
    return [part.strip() for part in parts if part.strip()]


def _read(variable: str, default: Any, kind: Any, wanted: str) -> Any:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    try:
        return TypeAdapter(kind).validate_python(text)
    except ValidationError:
        raise ValueError(f"{variable} is {text!r}: write {wanted}") from None
