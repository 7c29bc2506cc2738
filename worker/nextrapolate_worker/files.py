"""Files of a job: their digests, and how they get to disk for good."""

import errno
import hashlib
import os
import re
from pathlib import Path

from safetensors import SafetensorError

from nextrapolate.schemas import FileInfo
from nextrapolate_store.files import NO_SPACE, sync_folder

_TAKES_NOTHING = (*NO_SPACE, errno.EROFS)
_IN_WORDS = re.compile(
    rf"Error while serializing: I/O error: [^()]*\(os error ({'|'.join(map(str, _TAKES_NOTHING))})\)"
)
"""safetensors' errors have no errno."""


def digest(path: Path) -> str:
    """Give a file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(folder: Path, *names: str) -> dict[str, FileInfo]:
    """Flush files and their folder to disk, and tell what they are: a commit must survive the machine."""
    artifacts = {}
    for name in names:
        path = folder / name
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        artifacts[name] = FileInfo(bytes=path.stat().st_size, sha256=digest(path))
    sync_folder(folder)
    return artifacts


def is_of_a_disk_that_takes_nothing(error: BaseException | None) -> bool:
    """Tell whether a disk is behind an error that is full, beyond its quota, or read-only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _TAKES_NOTHING:
            return True
        if isinstance(error, SafetensorError) and _IN_WORDS.match(str(error)):
            return True
        error = error.__cause__
    return False
