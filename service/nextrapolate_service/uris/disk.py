"""file://: folders on the server's own disk, below those that the operator lists."""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nextrapolate.schemas import ADAPTER_CONFIG, ADAPTER_MODEL
from nextrapolate_service.errors import RefusedUriError
from nextrapolate_service.uris.parsing import shown
from nextrapolate_service.uris.pinned import Pinned
from nextrapolate_store.content import PICKLED_MODEL, check_file, pickled
from nextrapolate_store.files import version_of
from nextrapolate_store.records import FileSource


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


def pin(folder: Path, roots: FileRoots) -> Pinned:
    """Find the two files of an adapter, and check its weights as far as their header tells.

    Raises:
        RefusedUriError: they are not there, or not below one of the roots.
        UnusableContent: the weights cannot be used.
    """
    model = _model_below(roots, folder)
    config = resolve_below(roots, folder / ADAPTER_CONFIG)
    try:
        with open_resolved(model) as weights, open_resolved(config) as document:
            check_file(ADAPTER_MODEL, weights)
            return Pinned(_source(model, weights), _source(config, document))
    except OSError as error:  # of a disk that is the caller's choice, and not the server's own
        raise _refused(folder, _unreadable(error)) from None


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
        path,
        f"there is no such file below the folders this server reads from ({listed}): fix the path, or "
        "upload to a series",
    )


def open_resolved(path: Path) -> BinaryIO:
    """Open what `resolve_below` gave; a link in its place by now is not followed, a pipe not waited for.

    Raises:
        RefusedUriError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(path, _unreadable(error)) from None
    return os.fdopen(descriptor, "rb")


def _unreadable(error: OSError) -> str:
    return (
        f"the server cannot read it ({error.strerror}): make it readable for the server, or upload to "
        "a series"
    )


def _model_below(roots: FileRoots, folder: Path) -> Path:
    try:
        return resolve_below(roots, folder / ADAPTER_MODEL)
    except RefusedUriError:
        with suppress(RefusedUriError):
            resolve_below(roots, folder / PICKLED_MODEL)
            raise pickled(PICKLED_MODEL) from None
        raise


def _source(path: Path, file: BinaryIO) -> FileSource:
    return FileSource("file", str(path), version_of(os.fstat(file.fileno())))


def _refused(path: Path, why: str) -> RefusedUriError:
    return RefusedUriError(f"{shown(f'file://{path}')} is refused: {why}", field="checkpoints")
