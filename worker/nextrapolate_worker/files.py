"""Files of a job: their digests, and how they get to disk for good."""

import hashlib
import os
from pathlib import Path

from nextrapolate.schemas import FileInfo
from nextrapolate_store.files import sync_folder


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
