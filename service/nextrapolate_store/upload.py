"""A file on its way into the store: hashed while it is written, flushed to disk while more arrives."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from nextrapolate.schemas import FileInfo
from nextrapolate_store.errors import DigestMismatch
from nextrapolate_store.files import locked, make_folder, sync_folder, temporary_in
from nextrapolate_store.quotas import Room

_FLUSH_EVERY_BYTES = 64 << 20


class Upload:
    """A file on its way in; it counts only once `commit` has returned."""

    def __init__(self, folder: Path, room: Room | None) -> None:
        self._folder = folder
        self._room = room
        self._temporary = temporary_in(folder)
        self._file = self._temporary.open("xb")
        self._digest = hashlib.sha256()
        self._written = 0
        self._beside = ThreadPoolExecutor(2, thread_name_prefix="upload")  # one hashes, one flushes
        self._flush: Future[None] | None = None
        self._flushed = 0

    @property
    def bytes_written(self) -> int:
        """How much has arrived."""
        return self._written

    @property
    def sha256(self) -> str:
        """The sha256 (hex) of what has arrived."""
        return self._digest.hexdigest()

    def write(self, *chunks: bytes) -> None:
        """Append to the file.

        Raises:
            QuotaExceeded: the tenant has no room for so much.
            OSError: the disk took neither this nor what came before it.
        """
        size = sum(map(len, chunks))
        if self._room is not None:
            self._room.cover(self._written + size)
        digesting = self._beside.submit(self._add_to_digest, chunks)
        try:
            self._file.writelines(chunks)
        finally:
            digesting.result()
        self._written += size
        self._flush_behind()

    def commit(self, expected_sha256: str | None = None) -> FileInfo:
        """Flush the file to disk and give it its name; the same bytes may have it already.

        Raises:
            DigestMismatch: the sha256 (hex) is not the expected one.
            OSError: the disk did not take it.
        """
        sha256 = self.sha256
        if expected_sha256 is not None and sha256 != expected_sha256.lower():
            raise DigestMismatch(
                f"what arrived has sha256 {sha256}, but {expected_sha256} was announced: send the file again"
            )
        info = FileInfo(bytes=self._written, sha256=sha256)
        self._file.flush()
        if self._flush is not None:
            self._flush.result()
        os.fsync(self._file.fileno())
        target = self._folder / sha256[:2] / sha256
        make_folder(target.parent)
        with locked(self._folder, shared=True):  # or a sweep could take it for the old one of that name
            self._temporary.rename(target)
        sync_folder(target.parent)
        if self._room is not None:
            self._room.keep(info)
        return info

    def close(self) -> None:
        """Remove whatever was not committed."""
        self._beside.shutdown()
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _add_to_digest(self, chunks: Iterable[bytes]) -> None:
        # One by one: what has just come off the network is still in the processor's cache.
        for chunk in chunks:
            self._digest.update(chunk)

    def _flush_behind(self) -> None:
        """Begin to flush what there is, so that `commit` has little left to wait for."""
        if self._written - self._flushed < _FLUSH_EVERY_BYTES:
            return
        if self._flush is not None:
            if not self._flush.done():
                return
            self._flush.result()  # an error of the disk is told once: it must not be lost here
        self._flush = self._beside.submit(os.fdatasync, self._file.fileno())
        self._flushed = self._written
