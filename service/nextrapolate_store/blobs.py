"""Files: uploads addressed by their sha256, and the results of jobs.

    {data_dir}/blobs/{tenant}/{sha256[:2]}/{sha256}     shared within a tenant, never across
    {data_dir}/jobs/{job}/{fence}/                      what one attempt made

A file appears under its name whole and flushed to disk, or not at all. Beside the results of a job lie its
records (journal.py).
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from nextrapolate.schemas import FileInfo
from nextrapolate_store.deployment import Deployment
from nextrapolate_store.errors import ArtifactNotFound, BlobNotFound
from nextrapolate_store.files import (
    abandoned,
    discard_folder,
    is_older,
    locked,
    make_folder,
    remove_discarded,
    temporary_in,
)
from nextrapolate_store.ids import is_id
from nextrapolate_store.quotas import QuotaStore
from nextrapolate_store.records import FileSource, JobRecord
from nextrapolate_store.tenants import checked_tenant
from nextrapolate_store.upload import Upload

_SHA256 = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """Blobs and results under one folder.

    Needs Redis for its quotas and to know its folder, so a worker's child can open it by itself.
    """

    def __init__(
        self, data_dir: Path, quotas: QuotaStore | None = None, deployment: Deployment | None = None
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._quotas = quotas
        self._deployment = deployment

    @contextmanager
    def upload(self, tenant: str, expected_bytes: int = 0, sha256: str | None = None) -> Iterator[Upload]:
        """Take in a file: `write` as it arrives, then `commit`. An error leaves nothing.

        What is expected of it, as far as that is known, lets it be refused before it arrives.

        Raises:
            QuotaExceeded: the tenant has no room for it.
            StoreMismatched: the data folder is not the one of this Redis.
        """
        if self._deployment is not None:
            self._deployment.check()
        folder = self._tenant_folder(tenant)
        room = self._quotas.room(tenant, expected_bytes, sha256) if self._quotas else nullcontext()
        with room as held:
            make_folder(folder)
            upload = Upload(folder, held)
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

    def result_folder(self, job_id: str, fence: int) -> Path:
        """Make the folder for the results of one attempt, and give its path.

        Raises:
            FileNotFoundError: the job has no folder, or the data folder is not there.
        """
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

    def free_bytes(self) -> int:
        """Space left on the disk for an unprivileged process."""
        return shutil.disk_usage(self._data_dir).free

    def check(self) -> None:
        """Write a file and flush it to disk, as every upload has to.

        Raises:
            OSError: that is not possible.
        """
        probe = temporary_in(self._data_dir)
        try:
            with probe.open("xb") as file:
                file.write(b"0")
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)

    # By the sweeper -------------------------------------------------------------------------------

    def job_ids(self) -> list[str]:
        """Ids of the jobs that have a folder, whatever is in it."""
        folders = self._data_dir.glob("jobs/*")
        return [folder.name for folder in folders if is_id(folder.name)]

    def discard_job(self, job_id: str) -> None:
        """Remove a job's folder: its results and its records."""
        discard_folder(self._job_folder(job_id))

    def keep_only_result(self, job: JobRecord) -> None:
        """Remove what the lost attempts at a job that has ended have made, and what they left to the next."""
        for folder in self._job_folder(job.id).iterdir():
            if folder.is_dir() and not (job.artifacts and folder.name == str(job.fence)):
                discard_folder(folder)

    def finish_discarding(self) -> None:
        """Remove the rest of the folders that a killed process was removing."""
        for parent in (self._data_dir / "series", self._data_dir / "jobs", *self._data_dir.glob("jobs/*")):
            remove_discarded(parent)

    def remove_abandoned(self, older_than_seconds: float) -> int:
        """Remove temporary files that nobody has written to for so long; gives how many."""
        temporary_files = list(abandoned(self._data_dir, older_than_seconds))
        for temporary in temporary_files:
            temporary.unlink(missing_ok=True)
        return len(temporary_files)

    def remove_unused(self, used: Mapping[str, set[str]], older_than_seconds: float) -> int:
        """Remove blobs that are not among those in use, by tenant, and came so long ago; gives how many."""
        count = 0
        for tenant in self._data_dir.glob("blobs/*"):
            for blob in tenant.glob("*/*"):
                if blob.name not in used.get(tenant.name, ()) and is_older(blob, older_than_seconds):
                    with locked(tenant, shared=False):
                        if is_older(blob, older_than_seconds):  # nobody has sent it again just now
                            blob.unlink(missing_ok=True)
                            count += 1
        return count

    def tenants(self) -> list[str]:
        """Name the tenants that have stored anything."""
        return [folder.name for folder in self._data_dir.glob("blobs/*")]

    def stored(self, tenant: str) -> dict[str, int]:
        """Give the bytes of each blob of a tenant by its sha256."""
        sizes: dict[str, int] = {}
        for blob in self._tenant_folder(tenant).glob("[0-9a-f]*/*"):
            with suppress(FileNotFoundError):  # another process sweeps, too
                sizes[blob.name] = blob.stat().st_size
        return sizes

    def _blob(self, tenant: str, sha256: str) -> Path | None:
        path = self._tenant_folder(tenant) / sha256[:2] / sha256
        return path if _SHA256.fullmatch(sha256) and path.is_file() else None

    def _tenant_folder(self, tenant: str) -> Path:
        return self._data_dir / "blobs" / checked_tenant(tenant)

    def _job_folder(self, job_id: str) -> Path:
        return self._data_dir / "jobs" / job_id
