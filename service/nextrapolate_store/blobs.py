"""Files: uploads addressed by their sha256, and the results of jobs.

    {data_dir}/blobs/{tenant}/{sha256[:2]}/{sha256}     shared within a tenant, never across
    {data_dir}/jobs/{job}/job.json                      what was asked; never changes
    {data_dir}/jobs/{job}/{fence}/                      what one attempt made

A file appears under its name whole and flushed to disk, or not at all.
"""

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nextrapolate.schemas import FileInfo
from nextrapolate_store.errors import ArtifactNotFound, BlobNotFound, DigestMismatch
from nextrapolate_store.records import FileSource, JobRecord
from nextrapolate_store.tenants import checked_tenant

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = ".upload-"


class Upload:
    """A file on its way in; it counts only once `commit` has returned."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._temporary = folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        self._file = self._temporary.open("xb")
        self._digest = hashlib.sha256()

    @property
    def bytes_written(self) -> int:
        """How much has arrived."""
        return self._file.tell()

    @property
    def sha256(self) -> str:
        """The sha256 (hex) of what has arrived."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Append to the file."""
        self._file.write(data)
        self._digest.update(data)

    def commit(self, expected_sha256: str | None = None) -> FileInfo:
        """Flush the file to disk and give it its name; the same bytes may have it already.

        Raises:
            DigestMismatch: the sha256 (hex) is not the expected one.
        """
        sha256 = self.sha256
        if expected_sha256 is not None and sha256 != expected_sha256.lower():
            raise DigestMismatch(
                f"what arrived has sha256 {sha256}, announced was {expected_sha256}: send the file again"
            )
        info = FileInfo(bytes=self.bytes_written, sha256=sha256)
        self._file.flush()
        os.fsync(self._file.fileno())
        target = self._folder / sha256[:2] / sha256
        make_folder(target.parent)
        self._temporary.rename(target)
        sync_folder(target.parent)
        return info

    def close(self) -> None:
        """Remove whatever was not committed."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class BlobStore:
    """Blobs and results under one folder. Needs no Redis, so a worker's child can open it by itself."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()

    @contextmanager
    def upload(self, tenant: str) -> Iterator[Upload]:
        """Take in a file of unknown size: `write` as it arrives, then `commit`. An error leaves nothing."""
        folder = self._tenant_folder(tenant)
        make_folder(folder)
        upload = Upload(folder)
        try:
            yield upload
        finally:
            upload.close()

    def put_bytes(self, tenant: str, data: bytes) -> FileInfo:
        """Store what is already in memory."""
        with self.upload(tenant) as upload:
            upload.write(data)
            return upload.commit()

    def put_file(self, tenant: str, path: Path, expected: FileInfo) -> FileInfo:
        """Copy a file in.

        Raises:
            DigestMismatch: it is no longer what it was.
        """
        with self.upload(tenant) as upload, path.open("rb") as file:
            shutil.copyfileobj(file, upload, length=1 << 20)
            return upload.commit(expected.sha256)

    def find(self, tenant: str, sha256: str) -> FileInfo | None:
        """Look for a blob of this tenant by its sha256 (hex)."""
        path = self._blob(tenant, sha256)
        return FileInfo(bytes=path.stat().st_size, sha256=sha256) if path else None

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

    def result_folder(self, job_id: str, fence: int) -> Path:
        """Make the folder for the results of one attempt, and give its path."""
        folder = self._job_folder(job_id) / str(fence)
        make_folder(folder)
        return folder

    def result_path(self, job: JobRecord, name: str) -> Path:
        """Give the path of a result of a succeeded job.

        Raises:
            ArtifactNotFound: it has no result of that name.
        """
        if name not in job.artifacts:
            known = ", ".join(sorted(job.artifacts)) or f"nothing yet, it is {job.state}"
            raise ArtifactNotFound(f"job {job.id} has no {name}; it has: {known}")
        return self._job_folder(job.id) / str(job.fence) / name

    def write_request(self, job_id: str, document: str) -> str:
        """Write the job's job.json, unless it has one; gives the text that stands there from now on."""
        folder = self._job_folder(job_id)
        make_folder(folder)
        target, temporary = folder / "job.json", folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.write(document)
                file.flush()
                os.fsync(file.fileno())
            target.hardlink_to(temporary)  # unlike a rename, refuses to replace
        except FileExistsError:
            return target.read_text(encoding="utf-8")
        finally:
            temporary.unlink(missing_ok=True)
            sync_folder(folder)
        return document

    def free_bytes(self) -> int:
        """Space left on the disk for an unprivileged process."""
        return shutil.disk_usage(self._data_dir).free

    def remove_abandoned(self, older_than_seconds: float = 3600) -> None:
        """Remove what died with its process: temporary files that were not written to for so long."""
        limit = time.time() - older_than_seconds
        for temporary in self._data_dir.glob(f"*/*/{_TEMPORARY}*"):
            try:
                if temporary.stat().st_mtime < limit:
                    temporary.unlink()
            except FileNotFoundError:  # another process sweeps, too
                continue

    def _blob(self, tenant: str, sha256: str) -> Path | None:
        path = self._tenant_folder(tenant) / sha256[:2] / sha256
        return path if _SHA256.fullmatch(sha256) and path.is_file() else None

    def _tenant_folder(self, tenant: str) -> Path:
        return self._data_dir / "blobs" / checked_tenant(tenant)

    def _job_folder(self, job_id: str) -> Path:
        return self._data_dir / "jobs" / job_id


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, private and flushed to disk: a file is no safer than its folder."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, as a rename is not safe before that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
