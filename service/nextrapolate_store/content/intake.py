"""A file of a checkpoint on its way in: bounded, and checked while it arrives."""

from collections.abc import Iterator
from contextlib import contextmanager

from nextrapolate.schemas import FileInfo
from nextrapolate_store.blobs import BlobStore
from nextrapolate_store.content import check_of, largest
from nextrapolate_store.errors import FileTooLarge
from nextrapolate_store.upload import Upload


class Intake:
    """An upload that refuses what cannot be used as soon as that shows."""

    def __init__(self, upload: Upload, name: str, limit: int) -> None:
        self._upload = upload
        self._name = name
        self._limit = limit
        self._check = check_of(name)

    @property
    def bytes_written(self) -> int:
        """How much has arrived."""
        return self._upload.bytes_written

    @property
    def sha256(self) -> str:
        """The sha256 (hex) of what has arrived."""
        return self._upload.sha256

    def write(self, *chunks: bytes) -> None:
        """Take what comes next.

        Raises:
            UnusableContent: the file cannot be used.
        """
        check_size(self._name, self.bytes_written + sum(map(len, chunks)), self._limit)
        for chunk in chunks:
            self._check.feed(chunk)
        self._upload.write(*chunks)

    def commit(self, expected_sha256: str | None = None) -> FileInfo:
        """Keep the file, which is whole now.

        Raises:
            UnusableContent: the file cannot be used.
            DigestMismatch: its sha256 (hex) is not the expected one.
        """
        self._check.finish()
        return self._upload.commit(expected_sha256)


@contextmanager
def taking_in(
    blobs: BlobStore,
    tenant: str,
    name: str,
    max_model_bytes: int,
    *,
    expected_bytes: int = 0,
    expected_sha256: str | None = None,
) -> Iterator[Intake]:
    """Take in the file of that name: `write` as it arrives, then `commit`. An error leaves nothing.

    Raises:
        QuotaExceeded: the tenant has no room for it.
    """
    with blobs.upload(tenant, expected_bytes, expected_sha256) as upload:
        yield Intake(upload, name, largest(name, max_model_bytes))


def check_size(name: str, size: int, limit: int) -> None:
    """Refuse a file by its size alone.

    Raises:
        FileTooLarge: it has more than `limit` bytes.
    """
    if size > limit:
        raise FileTooLarge(f"{name} is larger than the {limit} bytes that this server accepts", field=name)
