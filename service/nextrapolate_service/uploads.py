"""One file of a checkpoint on its way in: checked while it streams, kept only when it is good."""

import asyncio
import base64
import binascii
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool

from nextrapolate.schemas import ADAPTER_CONFIG, ADAPTER_MODEL, CheckpointFile, FileInfo
from nextrapolate_service.disk import require_space
from nextrapolate_service.errors import MalformedHeaderError
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.content import check_file, largest
from nextrapolate_store.content.intake import Intake, check_size, taking_in
from nextrapolate_store.records import FileSource, Place
from nextrapolate_store.series import check_room, check_same
from nextrapolate_store.store import Store

_PIECE_BYTES = 1 << 20
_MOST_BYTES = 8 << 20
_TAKE_EVERY_SECONDS = 10.0
"""However little has come: what is taken renews the room held for it (`quotas.py`)."""
_SPACE_EVERY_BYTES = 64 << 20
_SHA256_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:(?P<base64>[A-Za-z0-9+/=]*):\s*(?:$|,)")


def accepted_name(name: str) -> str:
    """Pass on the name of a file that is taken; of any other, say what to do, which its type alone would not.

    Raises:
        ValueError: the file is neither of the two.
    """
    if name in (ADAPTER_MODEL, ADAPTER_CONFIG):
        return name
    advice = "convert it to safetensors" if name.endswith((".bin", ".pt", ".pth")) else "send one of these"
    raise ValueError(f"{name!r:.80} is not accepted, only {ADAPTER_MODEL} and {ADAPTER_CONFIG}: {advice}")


def announced_digest(header: str | None) -> str | None:
    """Read the sha-256 of a Content-Digest header (RFC 9530), in hex; other algorithms are left alone.

    Raises:
        MalformedHeaderError: it is not what RFC 9530 says.
    """
    if header is None:
        return None
    found = _SHA256_DIGEST.search(header)
    try:
        digest = base64.b64decode(found["base64"], validate=True) if found else b""
    except binascii.Error:
        digest = b""
    if len(digest) == 32:
        return digest.hex()
    if not found and "=:" in header and "sha-256=" not in header:
        return None
    raise MalformedHeaderError("write it as Content-Digest: sha-256=:BASE64:", field="Content-Digest")


def check_length(name: CheckpointFile, length: int | None, settings: ServiceSettings) -> None:
    """Refuse by its announced length what would be refused by its length anyway.

    Raises:
        FileTooLarge: it would.
    """
    check_size(name, length or 0, largest(name, settings.max_upload_bytes))


def announce(store: Store, place: Place, digests: Mapping[CheckpointFile, str]) -> list[CheckpointFile]:
    """Take from what the tenant has stored already, in whatever run, the files with these sha256.

    Gives the names of those that still have to be sent.

    Raises:
        SeriesNotFound: the series was deleted in the meantime.
        SeriesFull: it takes no further file.
        FileTaken: the checkpoint has another file of that name.
        UnusableContent: what is stored cannot be the file of that name.
    """
    missing: list[CheckpointFile] = []
    for name, sha256 in digests.items():
        check_same(place.step, name, place.files.get(name), sha256)
        check_room(place, name)
        info = store.blobs.find(place.tenant, sha256)
        if info is None:
            missing.append(name)
        elif name not in place.files:
            with store.blobs.path(FileSource("blob", sha256), place.tenant).open("rb") as file:
                check_file(name, file)
            store.series.put_file(place.tenant, place.series, place.step, name, info)
    return missing


@dataclass(frozen=True)
class Receiver:
    """Takes one file of a checkpoint into the blob store, and notes it in its series."""

    store: Store
    settings: ServiceSettings
    place: Place
    name: CheckpointFile

    async def receive(
        self, chunks: AsyncIterator[bytes], *, expected_sha256: str | None, expected_bytes: int
    ) -> FileInfo:
        """Stream the file in; on any error nothing is kept.

        The same content again is answered like the first time.

        Raises:
            UnusableContent: the content cannot be used.
            SeriesNotFound: the series was deleted in the meantime.
            SeriesFull: it takes no further file.
            FileTaken: the checkpoint has another file of that name already.
            DigestMismatch: it is not what was announced.
            DiskReserveError: the disk has become too full for the rest of it.
            QuotaExceeded: the tenant has no room for it.
        """
        check_room(self.place, self.name)
        if expected_sha256 is not None:
            check_same(self.place.step, self.name, self._there, expected_sha256)
        opening = taking_in(
            self.store.blobs,
            self.place.tenant,
            self.name,
            self.settings.max_upload_bytes,
            expected_bytes=expected_bytes,
            expected_sha256=expected_sha256 or (self._there.sha256 if self._there else None),
        )
        async with contextmanager_in_threadpool(opening) as intake:
            await _one_ahead(chunks, partial(self._take, intake))
            return await run_in_threadpool(self._keep, intake, expected_sha256)

    @property
    def _there(self) -> FileInfo | None:
        return self.place.files.get(self.name)

    def _take(self, intake: Intake, chunks: Sequence[bytes]) -> None:
        before = intake.bytes_written
        intake.write(*chunks)
        # Others upload, too: what was free at the beginning need not be any more.
        if intake.bytes_written // _SPACE_EVERY_BYTES > before // _SPACE_EVERY_BYTES:
            require_space(self.settings)

    def _keep(self, intake: Intake, expected_sha256: str | None) -> FileInfo:
        check_same(self.place.step, self.name, self._there, intake.sha256)
        info = intake.commit(expected_sha256)
        self.store.series.put_file(self.place.tenant, self.place.series, self.place.step, self.name, info)
        self.store.statistics.add_upload(info.bytes)
        return info


async def _one_ahead(chunks: AsyncIterator[bytes], take: Callable[[Sequence[bytes]], None]) -> None:
    """Have what has arrived taken in a thread, while more arrives; no thread is left when this ends.

    All that came meanwhile is taken together, up to a bound in bytes and time: a thread is not woken for each
    small chunk.
    """
    taking: asyncio.Task[None] | None = None
    piece: list[bytes] = []
    gathered, taken_at = 0, time.monotonic()
    try:
        async for chunk in chunks:
            piece.append(chunk)
            gathered += len(chunk)
            is_free = taking is None or taking.done()
            is_due = time.monotonic() - taken_at > _TAKE_EVERY_SECONDS
            if gathered >= (_PIECE_BYTES if is_free else _MOST_BYTES) or is_due:
                if taking is not None:
                    await taking
                taking = asyncio.create_task(run_in_threadpool(take, piece))
                piece, gathered, taken_at = [], 0, time.monotonic()
        if taking is not None:
            await taking
        taking = asyncio.create_task(run_in_threadpool(take, piece))
        await taking
    finally:
        if taking is not None:
            await asyncio.wait([taking])
