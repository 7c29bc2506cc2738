"""Ids of jobs and series: ULIDs, which sort by the time they were made."""

import os
import re
from datetime import datetime
from pathlib import Path

from ulid import ULID

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def make_id(now_ms: int) -> str:
    """Make a new id.

    Args:
        now_ms: Redis' time, in milliseconds.
    """
    return str(ULID.from_timestamp(now_ms))


def is_id(text: str) -> bool:
    """Tell whether the store could have given out this id."""
    return _ULID.fullmatch(text) is not None


def made_at(made_id: str) -> datetime:
    """Tell when an id was made."""
    return ULID.from_str(made_id).datetime


def ids_in(folder: Path) -> list[str]:
    """List what in a folder is called by an id, oldest first; nothing where there is no such folder."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if is_id(entry.name))
    except FileNotFoundError:
        return []
