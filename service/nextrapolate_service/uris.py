"""Checkpoint URIs: parsed once into a typed value, and the string is never looked at again."""

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nextrapolate_service.errors import RefusedUriError, UnknownStepError

_FORBIDDEN = {"#": "a fragment (#)", "?": "a query (?)", "%": "a percent sign", "\\": "a backslash"}
_STEP = re.compile(r"(?:checkpoint-|global_step_)([0-9]{1,15})")
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)@(?P<revision>[\w.-]+)(?P<path>(?:/[\w.-]+)*)/?", re.ASCII)
_S3 = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>.+)")


@dataclass(frozen=True)
class FileUri:
    """A folder on the server's own disk."""

    path: Path


@dataclass(frozen=True)
class HubUri:
    """A folder of a Hugging Face repository at a revision."""

    repo: str
    revision: str
    path: str


@dataclass(frozen=True)
class S3Uri:
    """A prefix in a bucket."""

    bucket: str
    key: str


Uri = FileUri | HubUri | S3Uri


def parse(text: str) -> Uri:
    """Parse `file:///folder`, `hf://org/repo@revision/folder` or `s3://bucket/prefix`.

    Raises:
        RefusedUriError: another scheme, or anything in it that could mean two things to two readers.
    """
    for character, what in _FORBIDDEN.items():
        if character in text:
            raise _refused(text, f"it holds {what}: give the plain path")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise _refused(text, "it holds a control character: give the plain path")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("file", "hf", "s3"):
        raise _refused(text, "only file://, hf:// and s3:// are read: upload to a series instead")
    if ".." in rest.split("/"):
        raise _refused(text, "it holds '..': give the plain path")
    parsers: Mapping[str, Callable[[str, str], Uri]] = {
        "file": _parse_file,
        "hf": _parse_hub,
        "s3": _parse_s3,
    }
    return parsers[scheme](text, rest)


def step_of(text: str) -> int:
    """Read the step from a URI's path: the last `checkpoint-N` or `global_step_N` in it.

    Raises:
        UnknownStepError: there is none.
    """
    found = [match for part in text.split("/") if (match := _STEP.fullmatch(part))]
    if not found:
        raise UnknownStepError(
            f"{_shown(text)} names no step: give `step`, or a path with checkpoint-N or global_step_N",
            field="checkpoints",
        )
    return int(found[-1][1])


@dataclass(frozen=True)
class FileRoots:
    """Where `file://` may lead.

    Attributes:
        folders: below one of them.
        hidden: and not below this one: the server's own data, which is every tenant's.
    """

    folders: tuple[Path, ...]
    hidden: Path

    def allow(self, real: Path) -> bool:
        """Tell whether a path without links leads there."""
        below = any(real.is_relative_to(folder.resolve()) for folder in self.folders)
        return below and not real.is_relative_to(self.hidden.resolve())


def resolve_below(roots: FileRoots, path: Path) -> Path:
    """Follow all links of a path, and make sure that it leads to a regular file below one of the roots.

    The answer is the same for what is not there and for what is not allowed: it says nothing about the disk.

    Raises:
        RefusedUriError: it is not.
    """
    try:
        real = path.resolve(strict=True)
        if roots.allow(real) and stat.S_ISREG(real.lstat().st_mode):
            return real
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        pass
    listed = ", ".join(str(folder) for folder in roots.folders) or "none, so that file:// is off"
    raise _refused(
        f"file://{path}",
        f"there is no such file below the folders this server reads from ({listed}): "
        "mend the path, or upload to a series",
    )


def open_resolved(path: Path) -> BinaryIO:
    """Open what `resolve_below` gave; a link in its place by now is not followed, a pipe not waited for.

    Raises:
        RefusedUriError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = f"the server cannot read it ({error.strerror}): let it, or upload to a series"
        raise _refused(f"file://{path}", why) from None
    return os.fdopen(descriptor, "rb")


def _parse_file(text: str, rest: str) -> FileUri:
    if not rest.startswith("/"):
        raise _refused(text, "a file URI has three slashes and no host: file:///absolute/path")
    return FileUri(Path(rest))


def _parse_hub(text: str, rest: str) -> HubUri:
    found = _HUB.fullmatch(rest)
    if not found:
        raise _refused(text, "write it as hf://org/repo@revision/folder")
    return HubUri(found["repo"], found["revision"], found["path"].strip("/"))


def _parse_s3(text: str, rest: str) -> S3Uri:
    found = _S3.fullmatch(rest)
    if not found:
        raise _refused(text, "write it as s3://bucket/prefix")
    return S3Uri(found["bucket"], found["key"])


def _refused(text: str, why: str) -> RefusedUriError:
    return RefusedUriError(f"{_shown(text)} is refused: {why}", field="checkpoints")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 200 else text[:197] + "...")
