"""What environment variables hold. One that holds what cannot be used is named, with what to write instead.

A variable that is empty counts as one that is not set.
"""

import os
import re
from typing import Annotated, Any, TypeVar

from pydantic import ByteSize, Field, TypeAdapter, ValidationError

Default = TypeVar("Default")

_MOST = 1_000_000
_SIZE = re.compile(r"(\d+(\.\d*)?|\.\d+)\s*[A-Za-z]*")
_BYTES = TypeAdapter(ByteSize)


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
        raise ValueError(f"{text!r} is no size")
    try:
        return int(_BYTES.validate_python(text))  # redis-py packs no subclasses of int
    except OverflowError:
        raise ValueError(f"{text!r} is too large a size") from None


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
