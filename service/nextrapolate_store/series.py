"""Series: runs that post their checkpoints, and the jumps that were taken in them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from nextrapolate.schemas import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    MOST_CHECKPOINTS,
    CheckpointFile,
    FileInfo,
    JobState,
    SeriesCreate,
)
from nextrapolate_store.blobs import BlobStore
from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.content.adapter_config import MAX_CONFIG_BYTES
from nextrapolate_store.decoding import JUMP, pairs, series_record, timestamp_ms, when
from nextrapolate_store.documents import SeriesDocument, SeriesHistory
from nextrapolate_store.errors import (
    CheckpointIncomplete,
    FileTaken,
    FileTooLarge,
    JobNotSucceeded,
    JumpTaken,
    SeriesFull,
    SeriesNotFound,
)
from nextrapolate_store.ids import is_id
from nextrapolate_store.job_folders import JobFolders
from nextrapolate_store.jobs import JobStore
from nextrapolate_store.journal import Journal
from nextrapolate_store.paging import read_page
from nextrapolate_store.quotas import QuotaStore
from nextrapolate_store.records import FileSource, InputAdapter, JobInputs, JumpRecord, Place, SeriesRecord
from nextrapolate_store.tenants import Quota

_MOST_STEPS = 4 * MOST_CHECKPOINTS
"""With a checkpoint of two files, or with a jump. To show them all takes time, and it is everybody's."""
_FILES = (ADAPTER_MODEL, ADAPTER_CONFIG)
_PREFIXES = [RedisKey.SERIES, RedisKey.SERIES_FILES, RedisKey.SERIES_JUMPS]


class SeriesStore:
    """The series of all tenants. All methods raise `StoreUnavailable` where Redis does not answer."""

    def __init__(
        self,
        redis: Connection,
        journal: Journal,
        quotas: QuotaStore,
        blobs: BlobStore,
        jobs: JobStore,
        job_folders: JobFolders,
    ) -> None:
        self._redis = redis
        self._journal = journal
        self._quotas = quotas
        self._blobs = blobs
        self._jobs = jobs
        self._job_folders = job_folders
        self._create, self._delete = redis.load("create_series"), redis.load("delete_series")
        self._note, self._page = redis.load("note_in_series"), redis.load("page")
        self._read, self._place = redis.load("read"), redis.load("place")

    def create(self, tenant: str, request: SeriesCreate) -> SeriesRecord:
        """Begin a series.

        Raises:
            FileTooLarge: its LoRA configuration is larger than an adapter_config.json may be.
            QuotaExceeded: the tenant has as many series as it may, or no room for its LoRA configuration.
        """
        content = _config_file(request)
        series_id, now_ms = self._redis.new_id()
        self._quotas.hold(tenant, series_id, {Quota.SERIES: 1})
        config = None
        if content is not None:
            config = self._blobs.put_bytes(tenant, content)
        document = SeriesDocument(
            id=series_id, tenant=tenant, created_at=when(now_ms), request=request, lora_config_file=config
        )
        self._announce(self._journal.write_series(document))
        return self.get(tenant, series_id)

    def _announce(self, document: SeriesDocument) -> bool:
        fields = ["request", document.request.model_dump_json()]
        fields += ["created_at", str(timestamp_ms(document.created_at))]
        if document.lora_config_file is not None:
            fields += ["lora_config_file", document.lora_config_file.model_dump_json()]
        return bool(self._create(args=[document.id, document.tenant, *fields]))

    def get(self, tenant: str, series_id: str) -> SeriesRecord:
        """Read a series.

        Raises:
            SeriesNotFound: there is no such series, or it is another tenant's.
        """
        if not is_id(series_id):
            raise _not_found(series_id)
        record, files, jumps = map(pairs, self._read(keys=[prefix + series_id for prefix in _PREFIXES]))
        if record.get("tenant") != tenant:
            raise _not_found(series_id)
        return series_record(record, files, jumps)

    def place(self, tenant: str, series_id: str, step: int) -> Place:
        """Read what has arrived of one checkpoint, which takes as long in a long series as in a short one.

        Raises:
            SeriesNotFound: there is no such series, or it is another tenant's.
        """
        if not is_id(series_id):
            raise _not_found(series_id)
        owner, count, *found = self._place(args=[series_id, *(f"{step}/{name}" for name in _FILES)])
        if owner != tenant:
            raise _not_found(series_id)
        files = {
            name: FileInfo.model_validate_json(info)
            for name, info in zip(_FILES, found, strict=True)
            if info is not None
        }
        return Place(tenant, series_id, step, files, is_full=count >= _MOST_STEPS * len(_FILES))

    def list(self, tenant: str, *, limit: int, cursor: str | None) -> tuple[list[SeriesRecord], str | None]:
        """Read one page of the tenant's series, newest first, and the cursor of the next; None on the last.

        Raises:
            InvalidCursor: the cursor is no id.
        """
        rows, more = read_page(self._page, RedisKey.TENANT_SERIES + tenant, _PREFIXES, limit, cursor)
        records = [series_record(*hashes) for hashes in rows]
        return records, records[-1].id if more else None

    def delete(self, tenant: str, series_id: str) -> None:
        """Remove a series; jobs that read its files keep them until they are swept themselves.

        Raises:
            SeriesNotFound: there is no such series, or it is another tenant's.
        """
        self.get(tenant, series_id)
        self._journal.discard_series(series_id)  # first, or a rebuild could bring it back
        self._delete(args=[series_id, tenant])

    def put_file(self, tenant: str, series_id: str, step: int, name: CheckpointFile, info: FileInfo) -> None:
        """Note that a blob is a file of the checkpoint of this step; the same once more changes nothing.

        Raises:
            SeriesNotFound: there is no such series, or it is another tenant's.
            SeriesFull: it takes no further file.
            FileTaken: another blob is that file already: a checkpoint does not change.
        """
        check_room(self.place(tenant, series_id, step), name)
        with _unless_deleted(series_id):
            there = self._journal.write_file(series_id, step, name, info)
        if not self._note_file(series_id, step, name, there):
            raise _not_found(series_id)
        check_same(step, name, there, info.sha256)

    def _note_file(self, series_id: str, step: int, name: str, info: FileInfo) -> bool:
        args = [series_id, RedisKey.SERIES_FILES, f"{step}/{name}", info.model_dump_json()]
        return bool(self._note(args=args))

    def add_jump(self, tenant: str, series_id: str, step: int, job_id: str) -> SeriesRecord:
        """Note that the job's adapter was swapped in after this step, and keep its files as blobs.

        Raises:
            SeriesNotFound: there is no such series, or it is another tenant's.
            JobNotFound: so it is with the job.
            JobNotSucceeded: the job has no adapter.
            ResultLost: the disk has it no longer.
            QuotaExceeded: the tenant has no room for the files.
            SeriesFull: the series takes no further jump.
            JumpTaken: another job's was, after this very step: what has happened does not change.
        """
        jumps = self.get(tenant, series_id).jumps
        if len(jumps) >= _MOST_STEPS and step not in {jump.step for jump in jumps}:
            raise _full(series_id, f"{len(jumps)} jumps")
        job = self._jobs.get(tenant, job_id)
        if job.state is not JobState.SUCCEEDED:
            raise JobNotSucceeded(f"job {job_id} is {job.state}: only a succeeded job has an adapter")
        if ADAPTER_MODEL not in job.artifacts:
            raise JobNotSucceeded(f"job {job_id} has the task {job.request.task}, which makes no adapter")
        files = {
            name: self._blobs.put_file(tenant, self._job_folders.result_path(job, name), job.artifacts[name])
            for name in (ADAPTER_MODEL, ADAPTER_CONFIG)
        }
        with _unless_deleted(series_id):
            there = self._journal.write_jump(series_id, JumpRecord(step=step, job=job_id, files=files))
        if not self._note_jump(series_id, there):
            raise _not_found(series_id)
        if there.job != job_id:
            raise JumpTaken(
                f"the series has a jump after step {step} already, by job {there.job}: a run jumps once from "
                "one step; begin a new series for another run"
            )
        return self.get(tenant, series_id)

    def _note_jump(self, series_id: str, jump: JumpRecord) -> bool:
        return bool(self._note(args=[series_id, RedisKey.SERIES_JUMPS, jump.step, JUMP.dump_json(jump)]))

    def restore(self, history: SeriesHistory) -> bool:
        """Bring a series back from its records; False where it was there, or at least a part of it."""
        series_id = history.document.id
        is_new = self._announce(history.document)
        for step, files in history.checkpoints.items():
            for name, info in files.items():
                self._note_file(series_id, step, name, info)
        for jump in history.jumps:
            self._note_jump(series_id, jump)
        return is_new

    def inputs(self, tenant: str, series_id: str, until: int | None) -> JobInputs:
        """Give what a job on this series reads: checkpoints up to step `until`, and the jumps between them.

        Raises:
            SeriesNotFound: there is no such series, or it is another tenant's.
            CheckpointIncomplete: one of them lacks a file.
        """
        series = self.get(tenant, series_id)
        checkpoints = tuple(
            InputAdapter(step, _file(series, step, ADAPTER_MODEL), _file(series, step, ADAPTER_CONFIG))
            for step in series.checkpoints
            if until is None or step <= until
        )
        jumps = tuple(
            InputAdapter(jump.step, _blob(jump.files[ADAPTER_MODEL]), _blob(jump.files[ADAPTER_CONFIG]))
            for jump in series.jumps
            if checkpoints and jump.step < checkpoints[-1].step
        )
        return JobInputs(checkpoints, jumps, series.name)


def check_room(place: Place, name: str) -> None:
    """Refuse a file that would be one too many.

    Raises:
        SeriesFull: it would.
    """
    if place.is_full and name not in place.files:
        raise _full(place.series, f"the files of {_MOST_STEPS} checkpoints")


def check_same(step: int, name: str, there: FileInfo | None, sha256: str) -> None:
    """Refuse another file where the checkpoint of this step has one already: a checkpoint does not change.

    Raises:
        FileTaken: it has, and not the one with this sha256.
    """
    if there is not None and there.sha256 != sha256:
        raise FileTaken(
            f"step {step} has another {name} already (sha256 {there.sha256}): a checkpoint does not change; "
            "send it under its own step, or begin a new series",
            field=name,
        )


def _config_file(request: SeriesCreate) -> bytes | None:
    """Write the adapter_config.json that stands in for those of the checkpoints."""
    if request.lora_config is None:
        return None
    content = json.dumps(request.lora_config, indent=2).encode()
    if len(content) > MAX_CONFIG_BYTES:
        raise FileTooLarge(
            f"lora_config has {len(content)} bytes, more than the {MAX_CONFIG_BYTES} that an "
            "adapter_config.json may have: send what PEFT has written",
            field="lora_config",
        )
    return content


@contextmanager
def _unless_deleted(series_id: str) -> Iterator[None]:
    """Write into the folder of a series, which goes at once when it is deleted.

    Raises:
        SeriesNotFound: it was, since it was read.
    """
    try:
        yield
    except FileNotFoundError:
        raise _not_found(series_id) from None


def _full(series_id: str, what: str) -> SeriesFull:
    return SeriesFull(f"series {series_id} has {what}, as many as a series may have: begin another series")


def _not_found(series_id: str) -> SeriesNotFound:
    return SeriesNotFound(f"there is no series {series_id}")


def _file(series: SeriesRecord, step: int, name: str) -> FileSource:
    info = series.checkpoints[step].get(name)
    if info is None and name == ADAPTER_CONFIG:
        info = series.lora_config_file
    if info is None:
        raise CheckpointIncomplete(f"checkpoint {step} of series {series.id} lacks {name}: upload it first")
    return _blob(info)


def _blob(info: FileInfo) -> FileSource:
    return FileSource("blob", info.sha256)
