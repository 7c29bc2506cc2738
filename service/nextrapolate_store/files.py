"""Files that are there whole and flushed to disk, or not at all; and folders that go the same way."""

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk that is full, or of a quota that is used up."""

TEMPORARY = ".upload-"
_DISCARDED = ".discarded-"


def temporary_in(folder: Path) -> Path:
    """Name a file that is not there yet; one that stays behind is removed by `remove_abandoned`."""
    return folder / f"{TEMPORARY}{secrets.token_hex(8)}"


def write_once(path: Path, text: str, *, into_new_folder: bool = True) -> str:
    """Write a file, unless it is there; gives the text that stands there from now on.

    Args:
        path: the file.
        text: what it holds.
        into_new_folder: make its folder where it is missing; the one around that has to be there.

    Raises:
        FileNotFoundError: the folder is not there, or was discarded in the meantime.
    """
    folder = path.parent
    if into_new_folder:
        folder.mkdir(mode=0o700, exist_ok=True)
    try:
        if not path.exists():  # what is there can be had from a disk that takes nothing more, too
            with suppress(FileExistsError):  # another process was faster
                _make_at_once(path, text)
                return text
        return path.read_text(encoding="utf-8")
    finally:
        # The folder around it comes last, for the name of a new folder: a journalling file system has flushed
        # that by then with the folder's content, and this costs nothing.
        for grown in (folder, folder.parent):
            sync_folder(grown)


def _make_at_once(path: Path, text: str) -> None:
    temporary = temporary_in(path.parent)
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(temporary)  # unlike a rename, refuses to replace
    finally:
        temporary.unlink(missing_ok=True)


def write_over(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a file in place of the one that is there, if any.

    Args:
        path: the file.
        text: what it holds.
        mode: who may read and write it, less what the umask takes away; 0o600 is this user alone.

    Raises:
        FileNotFoundError: its folder is not there.
    """
    temporary = temporary_in(path.parent)
    try:
        with open(
            temporary, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, private and flushed to disk: a file is no safer than its folder.

    Raises:
        FileNotFoundError: the one around it is not there.
    """
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def make_folders(folder: Path) -> None:
    """Make a folder, and those around it."""
    if not folder.is_dir():
        make_folders(folder.parent)
        make_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, as a rename is not safe before that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard_folder(folder: Path) -> None:
    """Remove a folder: all of it at once as far as its name goes, whatever may kill this process."""
    discarded = folder.with_name(f"{_DISCARDED}{secrets.token_hex(8)}")
    try:
        folder.rename(discarded)
    except FileNotFoundError:  # another process was faster
        return
    shutil.rmtree(discarded, ignore_errors=True)


def remove_discarded(parent: Path) -> None:
    """Finish what a killed `discard_folder` has begun."""
    for discarded in parent.glob(f"{_DISCARDED}*"):
        shutil.rmtree(discarded, ignore_errors=True)


def remove_abandoned(folder: Path, older_than_seconds: float) -> int:
    """Remove temporary files that nobody has written to for so long: their process died. Gives how many."""
    found = [path for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}{TEMPORARY}*")]
    abandoned = [path for path in found if is_older(path, older_than_seconds)]
    for path in abandoned:
        path.unlink(missing_ok=True)
    return len(abandoned)


def version_of(status: os.stat_result) -> str:
    """Tell one state of a file from another, without reading it."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def is_older(path: Path, seconds: float) -> bool:
    """Tell whether a file was last written to so long ago; not where it is gone."""
    try:
        return path.stat().st_mtime < time.time() - seconds
    except FileNotFoundError:  # another process was faster
        return False


@contextmanager
def locked(folder: Path, *, shared: bool) -> Iterator[None]:
    """Hold a folder's lock, alone or with others; the kernel lets go of it where this process dies."""
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
