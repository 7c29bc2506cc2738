"""Files of tenants, addressed by their sha256.

    {data_dir}/blobs/{tenant}/{sha256[:2]}/{sha256}     shared within a tenant, never across

A file appears under its name whole and flushed to disk, or not at all.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from nextrapolate.schemas import FileInfo
from nextrapolate_store.deployment import Deployment
from nextrapolate_store.errors import BlobNotFound
from nextrapolate_store.files import is_older, locked, make_folder
from nextrapolate_store.quotas import QuotaStore, Room
from nextrapolate_store.records import FileSource
from nextrapolate_store.tenants import checked_tenant, is_tenant
from nextrapolate_store.upload import Upload

_SHA256 = re.compile(r"[0-9a-f]{64}")

Admission = Callable[[str, int, str | None], AbstractContextManager[Room | None]]
"""Lets a tenant's upload in, or refuses it, by how many bytes are expected and their sha256, if announced."""


def within_quotas(quotas: QuotaStore, deployment: Deployment) -> Admission:
    """Make the admission that counts what it lets in, and looks whether the folder is the one of this Redis.

    It raises `QuotaExceeded` where the tenant has no room, and `StoreMismatched` where the folder is not.
    """

    @contextmanager
    def admit(tenant: str, expected_bytes: int, sha256: str | None) -> Iterator[Room]:
        deployment.check()
        with quotas.room(tenant, expected_bytes, sha256) as room:
            yield room

    return admit


def uncounted(tenant: str, expected_bytes: int, sha256: str | None) -> AbstractContextManager[None]:
    """The admission that lets everything in, and leaves the counting to `QuotaStore.recount`."""
    return nullcontext()


class Blobs:
    """Blobs that are there. Needs no Redis: a worker's child opens them by itself."""

    def __init__(self, data_dir: Path) -> None:
        self._blobs = data_dir.absolute() / "blobs"

    def find(self, tenant: str, sha256: str) -> FileInfo | None:
        """Look for a blob of this tenant by its sha256 (hex); one that is there counts as sent just now."""
        path = self._blob(tenant, sha256)
        if path is None:
            return None
        with locked(self._tenant_folder(tenant), shared=True):
            try:
                os.utime(path)
            except FileNotFoundError:  # the sweeper was faster
                return None
        return FileInfo(bytes=path.stat().st_size, sha256=sha256)

    def path(self, source: FileSource, tenant: str) -> Path:
        """Give the path of a file that a job reads.

        Raises:
            BlobNotFound: this tenant has no such blob.
        """
        if source.kind == "file":
            return Path(source.location)
        path = self._blob(tenant, source.location)
        if path is None:
            raise BlobNotFound(f"there is no file with sha256 {source.location}: upload it first")
        return path

    def tenants(self) -> list[str]:
        """Name the tenants that have stored anything."""
        return [folder.name for folder in self._tenant_folders()]

    def stored(self, tenant: str) -> dict[str, int]:
        """Give the bytes of each blob of a tenant by its sha256."""
        sizes: dict[str, int] = {}
        for blob in _blobs_in(self._tenant_folder(tenant)):
            with suppress(FileNotFoundError):  # another process sweeps, too
                sizes[blob.name] = blob.stat().st_size
        return sizes

    def old(self, older_than_seconds: float) -> dict[str, set[str]]:
        """Give the sha256 of the blobs that came so long ago, by tenant; none of a tenant without such."""
        found = {
            folder.name: {blob.name for blob in _blobs_in(folder) if is_older(blob, older_than_seconds)}
            for folder in self._tenant_folders()
        }
        return {tenant: names for tenant, names in found.items() if names}

    def remove_unused(self, unused: Mapping[str, set[str]], older_than_seconds: float) -> int:
        """Remove blobs, by tenant, that still came so long ago; gives how many."""
        count = 0
        for tenant, names in unused.items():
            for name in names:
                blob = self._place(tenant, name)
                with locked(self._tenant_folder(tenant), shared=False):
                    if is_older(blob, older_than_seconds):  # nobody has sent it again just now
                        blob.unlink(missing_ok=True)
                        count += 1
        return count

    def _place(self, tenant: str, sha256: str) -> Path:
        return self._tenant_folder(tenant) / sha256[:2] / sha256

    def _blob(self, tenant: str, sha256: str) -> Path | None:
        path = self._place(tenant, sha256)
        return path if _SHA256.fullmatch(sha256) and path.is_file() else None

    def _tenant_folder(self, tenant: str) -> Path:
        return self._blobs / checked_tenant(tenant)

    def _tenant_folders(self) -> Iterator[Path]:
        """Find the folders of tenants; what somebody has put beside them, such as a copy of one, is none."""
        return (path for path in self._blobs.glob("*") if is_tenant(path.name) and path.is_dir())


class BlobStore(Blobs):
    """Blobs that are there, and new ones that are let in."""

    def __init__(self, data_dir: Path, admission: Admission) -> None:
        super().__init__(data_dir)
        self._admission = admission

    @contextmanager
    def upload(self, tenant: str, expected_bytes: int = 0, sha256: str | None = None) -> Iterator[Upload]:
        """Take in a file: `write` as it arrives, then `commit`. An error leaves nothing.

        What is expected of it, as far as that is known, lets it be refused before it arrives.

        Raises:
            QuotaExceeded, StoreMismatched: by the admission.
        """
        folder = self._tenant_folder(tenant)
        with self._admission(tenant, expected_bytes, sha256) as room:
            make_folder(folder)
            upload = Upload(folder, room)
            try:
                yield upload
            finally:
                upload.close()

    def put_bytes(self, tenant: str, data: bytes) -> FileInfo:
        """Store what is already in memory."""
        with self.upload(tenant, len(data)) as upload:
            upload.write(data)
            return upload.commit()

    def put_file(self, tenant: str, path: Path, expected: FileInfo) -> FileInfo:
        """Copy a file in.

        Raises:
            DigestMismatch: it is no longer what it was.
        """
        with self.upload(tenant, expected.bytes, expected.sha256) as upload, path.open("rb") as file:
            shutil.copyfileobj(file, upload, length=1 << 20)
            return upload.commit(expected.sha256)


def _blobs_in(tenant_folder: Path) -> Iterator[Path]:
    """Find the blobs of a tenant; what else a file system or a copy may have left among them is none."""
    for folder in tenant_folder.glob("[0-9a-f][0-9a-f]"):
        for file in folder.glob(f"{folder.name}*"):
            if _SHA256.fullmatch(file.name) and file.is_file():
                yield file
