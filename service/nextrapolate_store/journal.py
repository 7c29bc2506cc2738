"""Records on disk, from which Redis can be rebuilt. None of them ever changes, but for a tenant's quotas.

    {data_dir}/jobs/{job}/job.json                  what was asked; there before the job is acknowledged
    {data_dir}/jobs/{job}/end.json                  how it ended, with the digests of its results
    {data_dir}/jobs/{job}/webhook.json              the attempts to deliver its webhook
    {data_dir}/series/{series}/series.json          the run, as it was announced
    {data_dir}/series/{series}/{step}.{file}.json   a file of a checkpoint: its size and digest
    {data_dir}/series/{series}/{step}.jump.json     the adapter that was swapped in after this step
    {data_dir}/keys/{key}-{digest}.json             an API key, with a digest in place of its secret
    {data_dir}/keys/{key}-{digest}.revoked.json     since when it is refused
    {data_dir}/tenants/{tenant}.json                quotas of the tenant's own

Of two who write one record, the first decides: every `write_` gives what stands there from now on. An
end.json that is damaged is replaced, and kept as end.json.damaged.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from nextrapolate.schemas import AS_KEPT, FileInfo
from nextrapolate_store.deployment import Deployment
from nextrapolate_store.documents import (
    Document,
    EndDocument,
    FileDocument,
    InputsOnly,
    JobDocument,
    JumpDocument,
    KeyDocument,
    QuotasDocument,
    RevocationDocument,
    SeriesDocument,
    SeriesHistory,
    WebhookDocument,
)
from nextrapolate_store.errors import RecordDamaged, RecordUnreadable
from nextrapolate_store.files import discard_folder, is_older, remove_discarded, write_once, write_over
from nextrapolate_store.ids import ids_in
from nextrapolate_store.job_folders import JobFolders
from nextrapolate_store.records import JobInputs, JumpRecord

_log = logging.getLogger(__name__)

_JOB, _END, _WEBHOOK, _SERIES = "job.json", "end.json", "webhook.json", "series.json"
_JUMP, _REVOKED = "jump", ".revoked.json"
_DAMAGED = ".json.damaged"
_OF_STEP = re.compile(r"(?P<step>[0-9]+)\.(?P<what>.+)\.json")
_D = TypeVar("_D", bound=Document)


class Journal:
    """The records of all tenants.

    All methods but those that give ids raise `RecordUnreadable` where a record cannot be read,
    `RecordDamaged` where that is for its content and not for its version, and FileNotFoundError where it has
    been removed. Those that write raise `StoreMismatched` where the data folder is not the one of this Redis.
    """

    def __init__(self, data_dir: Path, deployment: Deployment, job_folders: JobFolders) -> None:
        self._deployment = deployment
        self._job_folders = job_folders
        self._series, self._keys, self._tenants = (data_dir / part for part in ("series", "keys", "tenants"))

    def write_job(self, document: JobDocument) -> JobDocument:
        """Write down what was asked."""
        return self._write(self._job_folders.path(document.id) / _JOB, document)

    def write_end(self, document: EndDocument) -> EndDocument:
        """Write down how a job ended.

        A damaged record says nothing of an end before: it is replaced, and kept beside the new one.
        """
        path = self._job_folders.path(document.job.id) / _END
        try:
            return self._write(path, document)
        except RecordDamaged:
            kept = path.with_suffix(_DAMAGED)
            _log.error(
                "%s was damaged: it was written again from what Redis knows, and the old file is now %s",
                path,
                kept.name,
            )
            with suppress(FileExistsError):  # kept by a process that was killed before the next line
                kept.hardlink_to(path)
            write_over(path, _text(document))
            return document

    def write_webhook(self, job_id: str, document: WebhookDocument) -> None:
        """Write down the attempts to deliver a job's webhook; nothing where the job was swept meanwhile."""
        with suppress(FileNotFoundError):
            self._write(self._job_folders.path(job_id) / _WEBHOOK, document, into_new_folder=False)

    def write_series(self, document: SeriesDocument) -> SeriesDocument:
        """Write down a run as it was announced."""
        return self._write(self._series_record(document.id), document)

    def write_file(self, series_id: str, step: int, name: str, info: FileInfo) -> FileInfo:
        """Write down which blob is this file of the checkpoint.

        Raises:
            FileNotFoundError: the series was never announced, or is deleted.
        """
        path = self._series / series_id / f"{step}.{name}.json"
        return self._write(path, FileDocument(file=info), into_new_folder=False).file

    def write_jump(self, series_id: str, jump: JumpRecord) -> JumpRecord:
        """Write down which adapter was swapped in.

        Raises:
            FileNotFoundError: the series was never announced, or is deleted.
        """
        path = self._series / series_id / f"{jump.step}.{_JUMP}.json"
        return self._write(path, JumpDocument(jump=jump), into_new_folder=False).jump

    def discard_series(self, series_id: str) -> None:
        """Remove all records of a series."""
        self._deployment.check()
        discard_folder(self._series / series_id)

    def finish_discarding(self) -> None:
        """Remove the rest of the series that a killed process was removing."""
        remove_discarded(self._series)

    def write_key(self, document: KeyDocument) -> KeyDocument:
        """Write down an API key."""
        return self._write(self._key(document.id, document.digest), document, into_new_folder=False)

    def write_revocation(self, key_id: str, digest: str, document: RevocationDocument) -> RevocationDocument:
        """Write down that a key is refused from now on."""
        path = self._key(key_id, digest).with_suffix(_REVOKED)
        return self._write(path, document, into_new_folder=False)

    def write_quotas(self, document: QuotasDocument) -> None:
        """Write down the quotas of a tenant, in place of those it had."""
        self._deployment.check()
        path = self._tenants / f"{document.tenant}.json"
        if document.quotas:
            write_over(path, _text(document))
        else:
            path.unlink(missing_ok=True)

    def job_ids(self) -> Iterator[str]:
        """Ids of all jobs that were asked for, oldest first."""
        return (job_id for job_id in self._job_folders.ids() if self.has_job(job_id))

    def series_ids(self) -> Iterator[str]:
        """Ids of all series that were announced, oldest first."""
        return (series_id for series_id in ids_in(self._series) if self._series_record(series_id).exists())

    def unfinished_series(self, older_than_seconds: float) -> list[str]:
        """Ids of series that have a folder, and no record in it, and were not written to for so long."""
        return [
            series_id
            for series_id in ids_in(self._series)
            if not self._series_record(series_id).exists()
            and is_older(self._series / series_id, older_than_seconds)
        ]

    def key_names(self) -> Iterator[str]:
        """What `read_key` takes, of all keys that were made."""
        return (path.stem for path in sorted(self._keys.glob("*.json")) if _REVOKED not in path.name)

    def tenants(self) -> Iterator[str]:
        """Names of the tenants that have quotas of their own."""
        return (path.stem for path in self._tenants.glob("*.json"))

    def is_empty(self) -> bool:
        """True where nothing was ever written down: no job, no series, no key, no quotas."""
        return not any(chain(self.job_ids(), self.series_ids(), self.key_names(), self.tenants()))

    def has_job(self, job_id: str) -> bool:
        """Tell whether a job of this id was asked for, and its records are kept."""
        return (self._job_folders.path(job_id) / _JOB).exists()

    def read_job(self, job_id: str) -> tuple[JobDocument, EndDocument | None]:
        """Read what was asked, how it ended, and how its webhook was delivered."""
        end = self.read_end(job_id)
        path = self._job_folders.path(job_id) / _WEBHOOK
        if end is not None and (told := _read_if_there(path, WebhookDocument)) is not None:
            end = end.model_copy(update={"job": replace(end.job, deliveries=told.deliveries)})
        return _read(self._job_folders.path(job_id) / _JOB, JobDocument), end

    def read_end(self, job_id: str) -> EndDocument | None:
        """Read how a job ended; None where that has not been written down."""
        return _read_if_there(self._job_folders.path(job_id) / _END, EndDocument)

    def read_series(self, series_id: str) -> SeriesHistory:
        """Read a series with everything that has arrived of it."""
        folder = self._series / series_id
        checkpoints: dict[int, dict[str, FileInfo]] = defaultdict(dict)
        jumps: list[JumpRecord] = []
        for path in sorted(folder.iterdir()):
            if found := _OF_STEP.fullmatch(path.name):
                if found["what"] == _JUMP:
                    jumps.append(_read(path, JumpDocument).jump)
                else:
                    checkpoints[int(found["step"])][found["what"]] = _read(path, FileDocument).file
        return SeriesHistory(_read(self._series_record(series_id), SeriesDocument), checkpoints, tuple(jumps))

    def read_key(self, name: str) -> tuple[KeyDocument, datetime | None]:
        """Read an API key, and since when it is refused."""
        path = self._keys / f"{name}.json"
        return _read(path, KeyDocument), _revoked_at(path)

    def read_revocation(self, key_id: str, digest: str) -> datetime | None:
        """Read since when an API key is refused; None where it is not."""
        return _revoked_at(self._key(key_id, digest))

    def read_quotas(self, tenant: str) -> QuotasDocument:
        """Read the quotas of a tenant."""
        return _read(self._tenants / f"{tenant}.json", QuotasDocument)

    def blobs_in_use(self) -> Iterator[tuple[str, set[str]]]:
        """Tenant and digests of the blobs that each series needs, and then each job.

        Read one record after the other, as they are asked for: there may be a hundred thousand.
        """
        for series_id in self.series_ids():
            with suppress(FileNotFoundError):  # it is being deleted
                history = self.read_series(series_id)
                yield history.document.tenant, {info.sha256 for info in history.files()}
        for job_id in self._job_folders.ids():
            with suppress(FileNotFoundError):  # it was never asked for, or another process sweeps it
                job = _read(self._job_folders.path(job_id) / _JOB, InputsOnly)
                yield job.tenant, set(_blobs(job.inputs))

    def _write(self, path: Path, document: _D, *, into_new_folder: bool = True) -> _D:
        self._deployment.check()
        try:
            text = write_once(path, _text(document), into_new_folder=into_new_folder)
        except UnicodeDecodeError as error:
            raise _damaged(path, str(error)) from error
        return _parse(path, text, type(document))

    def _series_record(self, series_id: str) -> Path:
        return self._series / series_id / _SERIES

    def _key(self, key_id: str, digest: str) -> Path:
        """An id may come again with another secret."""
        return self._keys / f"{key_id}-{digest[:16]}.json"


def _revoked_at(key: Path) -> datetime | None:
    revocation = _read_if_there(key.with_suffix(_REVOKED), RevocationDocument)
    return revocation.revoked_at if revocation is not None else None


def _blobs(inputs: JobInputs) -> Iterator[str]:
    for adapter in (*inputs.checkpoints, *inputs.jumps):
        for source in (adapter.model, adapter.config):
            if source.kind == "blob":
                yield source.location


def _text(document: Document) -> str:
    return document.model_dump_json(indent=1)


def _read_if_there(path: Path, kind: type[_D]) -> _D | None:
    with suppress(FileNotFoundError):
        return _read(path, kind)
    return None


def _read(path: Path, kind: type[_D]) -> _D:
    try:
        return _parse(path, path.read_text(encoding="utf-8"), kind)
    except UnicodeDecodeError as error:
        raise _damaged(path, str(error)) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordUnreadable(f"{path} cannot be read ({error}): restore it from a backup") from error


def _parse(path: Path, text: str, kind: type[_D]) -> _D:
    try:
        return kind.model_validate_json(text, context=AS_KEPT)
    except ValidationError as error:
        errors = error.errors()
        if any(found["loc"] == ("format",) for found in errors):
            raise RecordUnreadable(
                f"{path} was written by a version that this nextrapolate cannot read: upgrade, or restore "
                "it from a backup"
            ) from error
        where = "".join(f"{part}: " for part in errors[0]["loc"])
        raise _damaged(path, f"{where}{errors[0]['msg']}") from error


def _damaged(path: Path, reason: str) -> RecordDamaged:
    return RecordDamaged(f"{path} is damaged ({reason}): restore it from a backup")
