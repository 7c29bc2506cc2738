"""Tenants: whoever shares series, jobs and files."""

import re

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def checked_tenant(name: str) -> str:
    """Give a tenant's name back: it becomes part of paths and of Redis' keys.

    Raises:
        ValueError: it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a tenant: use up to 64 letters, digits, - and _")
    return name
