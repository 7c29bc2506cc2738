"""Files on their way: uploads that can be sent again, downloads that go on where they broke off."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import httpx

from nextrapolate.errors import DownloadError
from nextrapolate.schemas import FileInfo

CHUNK = 1 << 20

OnBytes = Callable[[int], None]
"""Told how many bytes of a file have gone over the wire so far."""


@dataclass(frozen=True)
class Upload:
    """A file's content, read anew for every attempt, so that a retry sends all of it."""

    source: bytes | Path
    on_bytes: OnBytes | None = None

    @cached_property
    def info(self) -> FileInfo:
        """Length and digest. Reads the whole source, the first time."""
        if isinstance(self.source, bytes):
            return FileInfo(bytes=len(self.source), sha256=hashlib.sha256(self.source).hexdigest())
        with self.source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return FileInfo(bytes=file.tell(), sha256=digest.hexdigest())

    def headers(self) -> dict[str, str]:
        """Tell length and digest (RFC 9530)."""
        encoded = base64.b64encode(bytes.fromhex(self.info.sha256)).decode()
        return {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self.info.bytes),
            "Content-Digest": f"sha-256=:{encoded}:",
        }

    def chunks(self) -> Iterator[bytes]:
        """Read the content from its beginning, in pieces of a megabyte."""
        sent = 0
        for chunk in self._pieces():
            yield chunk
            sent += len(chunk)
            if self.on_bytes:
                self.on_bytes(sent)

    def skip(self) -> None:
        """Nothing has to be sent: the service has it."""
        if self.on_bytes:
            self.on_bytes(self.info.bytes)

    def _pieces(self) -> Iterator[bytes]:
        if isinstance(self.source, bytes):
            # Of one large piece httpcore copies the rest after every part that the socket takes.
            for begin in range(0, len(self.source), CHUNK):
                yield self.source[begin : begin + CHUNK]
            return
        with self.source.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


@dataclass(frozen=True)
class Download:
    """A file of a job on its way to `target`; an attempt goes on after the bytes that an earlier one left."""

    path: str
    target: Path
    expected: FileInfo
    on_bytes: OnBytes | None = None

    def headers(self) -> dict[str, str]:
        """Ask for what is not there yet, on condition that the server still has the same file."""
        arrived = self._arrived()
        if not 0 < arrived < self.expected.bytes:
            return {}
        return {"Range": f"bytes={arrived}-", "If-Range": f'"{self.expected.sha256}"'}

    def open(self, response: httpx.Response) -> BinaryIO:
        """Open the target where the answer's bytes belong."""
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        return self.target.open("ab" if resumed else "wb")

    def write(self, file: BinaryIO, chunk: bytes) -> None:
        """Put a piece down, and tell how far the file is."""
        file.write(chunk)
        if self.on_bytes:
            self.on_bytes(file.tell())

    def verify(self) -> None:
        """Compare what has arrived with what the job says it left behind.

        Raises:
            DownloadError: the digests differ.
        """
        with self.target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.expected.sha256:
            raise DownloadError(
                f"{self.target.name} arrived with sha256 {digest}, but the job's file has "
                f"{self.expected.sha256}; download it again"
            )

    def _arrived(self) -> int:
        return self.target.stat().st_size if self.target.exists() else 0


async def in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Hand the chunks to a coroutine; each is read in a thread, so that a slow disk holds up nobody else."""
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk
