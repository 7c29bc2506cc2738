"""From elsewhere into the blobs of a tenant, checked as uploads are; what is there is not fetched again.

{data_dir}/fetched/{tenant}/{sha256 of what was pinned}.json    which blob it was

Of a file whose sha256 the Hub tells there is no such note. The sweeper removes those of blobs that are gone.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nextrapolate.schemas import FileInfo
from nextrapolate_store.blobs import BlobStore, uncounted
from nextrapolate_store.content.intake import taking_in
from nextrapolate_store.errors import RemoteUnavailable
from nextrapolate_store.files import write_once
from nextrapolate_store.records import HubFile, RemoteFile

_REMOTE: TypeAdapter[RemoteFile] = TypeAdapter(RemoteFile)


class Fetcher:
    """Fetches for one tenant, and for whoever gave the token. Safe to share between threads.

    Needs no Redis, as it works in the processes of jobs, too, and so counts nothing. A job has held room for
    its weights since its submit, and its tenant's blobs are counted when it ends, and at each sweep.

    Args:
        data_dir: the store's folder.
        tenant: whose blobs the files become.
        hub_token: the caller's own; None for what everybody may read.
        scratch: folder for what is on its way; else that of the system's temporary files.
    """

    def __init__(
        self, data_dir: Path, tenant: str, *, hub_token: str | None, scratch: Path | None = None
    ) -> None:
        self._blobs = BlobStore(data_dir, uncounted)
        self._notes = data_dir / "fetched" / tenant
        self._tenant = tenant
        self._hub_token = hub_token
        self._scratch = scratch

    def known(self, file: RemoteFile) -> FileInfo | None:
        """Tell which blob it is, where it has been fetched before and is still there."""
        sha256 = _told(file) or _noted(self._note(file))
        return self._blobs.find(self._tenant, sha256) if sha256 is not None else None

    def fetch(self, file: RemoteFile, name: str) -> FileInfo:
        """Make a blob of it, which can be used as a checkpoint's file of that name.

        Raises:
            UnusableContent: it cannot be used as that.
            RemoteNotFound, RemoteChanged, RemoteUnavailable: it cannot be had.
        """
        if (info := self.known(file)) is not None:
            return info
        with taking_in(self._blobs, self._tenant, name, max_model_bytes=file.bytes) as intake:
            for piece in self._pieces(file):
                intake.write(piece)
            if intake.bytes_written < file.bytes:
                raise RemoteUnavailable(
                    f"{file.bytes} bytes were announced, but {intake.bytes_written} arrived: try again later"
                )
            if isinstance(file, HubFile) and file.sha256 not in (None, intake.sha256):
                raise RemoteUnavailable(f"{file.path} arrived damaged from the Hub: try again later")
            info = intake.commit()
        if _told(file) is None:
            self._note(file).unlink(missing_ok=True)
            write_once(self._note(file), info.model_dump_json())
        return info

    def forget_swept(self) -> None:
        """Remove the notes of blobs that are not there any more; any time."""
        notes = list(self._notes.glob("*.json"))  # first: what is fetched is a blob before it is noted
        there = self._blobs.stored(self._tenant)
        for note in notes:
            if _noted(note) not in there:
                note.unlink(missing_ok=True)

    def _pieces(self, file: RemoteFile) -> Iterator[bytes]:
        # Imported here: every job's process would wait for these clients, and few jobs have anything fetched.
        if isinstance(file, HubFile):
            from nextrapolate_store.remote import hub

            return hub.pieces(file, self._hub_token, self._scratch)
        from nextrapolate_store.remote import buckets

        return buckets.pieces(file)

    def _note(self, file: RemoteFile) -> Path:
        return self._notes / f"{hashlib.sha256(_REMOTE.dump_json(file)).hexdigest()}.json"


def _told(file: RemoteFile) -> str | None:
    """Its sha256, where the Hub tells it."""
    return file.sha256 if isinstance(file, HubFile) else None


def _noted(note: Path) -> str | None:
    try:
        return FileInfo.model_validate_json(note.read_bytes()).sha256
    except (FileNotFoundError, ValidationError):
        return None
