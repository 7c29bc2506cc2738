"""What takes more than one call, written once for both clients.

A flow is a generator: it yields a `Call` or a `Download`, is sent the answer, and returns its result. It does
no network I/O itself, so `NExtClient` and `AsyncNExtClient` each carry out the same flow in their own way, as
httpx does with `auth_flow`.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

from nextrapolate.errors import (
    APIError,
    CheckpointError,
    DownloadError,
    JobCancelledError,
    JobFailedError,
    ServiceUnreachable,
)
from nextrapolate.folders import LocalCheckpoint
from nextrapolate.invalid_requests import making_a_request
from nextrapolate.progress import Tracker
from nextrapolate.schemas import CheckpointFile, FileInfo, Job, JobRequest, JobState, Labels, Series
from nextrapolate.sources import LocalRun, RemoteCheckpoints, Resolved, StoredSeries
from nextrapolate.wire import calls
from nextrapolate.wire.calls import Call, ReportT
from nextrapolate.wire.transfers import Download, Upload

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Flow = Generator[Call[Any] | Download, Any, T]

PAGE = 100


class Page(Protocol[T_co]):
    """One page of a list, newest first."""

    @property
    def items(self) -> Sequence[T_co]:
        """The page's entries."""

    @property
    def next_cursor(self) -> str | None:
        """Where the next page begins; None on the last one."""


def ask(call: Call[T]) -> Flow[T]:
    """Make a single call, with the type of its answer."""
    answer: T = yield call
    return answer


def newest(page: Callable[[int, str | None], Call[Page[T]]], limit: int) -> Flow[list[T]]:
    """Collect up to `limit` entries of a list, over as many pages as it takes."""
    items: list[T] = []
    cursor: str | None = None
    while len(items) < limit:
        answer = yield from ask(page(min(PAGE, limit - len(items)), cursor))
        items.extend(answer.items)
        cursor = answer.next_cursor
        if cursor is None:
            break
    return items


def upload_checkpoint(series_id: str, checkpoint: LocalCheckpoint) -> Flow[dict[CheckpointFile, FileInfo]]:
    """Upload what the service does not have yet of a checkpoint, from this run or another."""
    uploads = {name: Upload(path) for name, path in checkpoint.files.items()}
    return (yield from upload_files(series_id, checkpoint.step, uploads))


def upload_files(
    series_id: str, step: int, uploads: Mapping[CheckpointFile, Upload]
) -> Flow[dict[CheckpointFile, FileInfo]]:
    """Upload the files of a checkpoint that the service does not have yet, each when the one before is there.

    The config is that of the checkpoints before: announced beside weights that are then refused or break off,
    it would be taken, and stand alone.
    """
    for name, upload in uploads.items():
        answer = yield from ask(calls.announce(series_id, step, name, upload))
        if name in answer.missing:
            yield from ask(calls.put_file(series_id, step, name, upload))
        else:
            upload.skip()
    return {name: upload.info for name, upload in uploads.items()}


def upload_run(
    name: str, checkpoints: Sequence[LocalCheckpoint], labels: Labels | None, tracker: Tracker
) -> Flow[Series]:
    """Make a new series with all of a run's checkpoints; it goes again where the first of them is refused."""
    config = checkpoints[-1].config()
    base_model = config.get("base_model_name_or_path")
    create = calls.create_series(name, base_model=base_model, lora_config=config, labels=labels)
    series = yield from ask(create)
    sizes = {path: path.stat().st_size for checkpoint in checkpoints for path in checkpoint.files.values()}
    before = 0
    for checkpoint in checkpoints:
        uploads: dict[CheckpointFile, Upload] = {}
        for file, path in checkpoint.files.items():
            on_bytes = tracker.uploading(f"step {checkpoint.step}", before, sum(sizes.values()))
            uploads[file] = Upload(path, on_bytes)
            before += sizes[path]
        try:
            yield from upload_files(series.id, checkpoint.step, uploads)
        except APIError as refusal:
            if checkpoint is checkpoints[0]:
                yield from _withdraw(series.id, refusal)
            raise
    return series


def _withdraw(series_id: str, refusal: APIError) -> Flow[None]:
    """Delete a series that holds nothing yet, and add to what was refused whether that went well."""
    try:
        yield from ask(calls.delete_series(series_id))
    except (APIError, ServiceUnreachable):
        refusal.add_note(
            "(its series is left without a checkpoint; delete it with `nextrapolate series delete "
            f"{series_id}`)"
        )
    else:
        refusal.add_note("(the series that was created for it has been deleted again)")


def submit_over(
    source: Resolved,
    request: Callable[..., JobRequest],
    *,
    name: str | None,
    labels: Labels | None,
    tracker: Tracker,
) -> Flow[Job]:
    """Upload what is local, and submit the job that `request` makes of where its trajectory is.

    Raises:
        ParameterError: it cannot be made; nothing was sent.
    """
    match source:
        case LocalRun():
            where: dict[str, Any] = {"series": ""}  # told once it is there
        case RemoteCheckpoints(refs):
            where = {"checkpoints": list(refs)}
        case StoredSeries(series_id):
            where = {"series": series_id}
    with making_a_request():
        body = request(**where, labels=labels or {})
    if isinstance(source, LocalRun):
        run = name or source.folder.absolute().name
        series = yield from upload_run(run, source.checkpoints, labels, tracker)
        body = body.model_copy(update={"series": series.id})
    job = yield from ask(calls.submit(body, idempotency_key=None))
    tracker.submitted(job)
    return job


def download_result(
    job_id: str, out: Path, tracker: Tracker, files: Collection[str] | None = None
) -> Flow[Path]:
    """Download the files of a job's result to `out`, all or these; it appears only when they are complete."""
    job = succeeded((yield from ask(calls.get_job(job_id))))
    wanted = {name: job.artifacts[name] for name in job.artifacts if files is None or name in files}
    if lacking := set(files or ()) - wanted.keys():
        raise DownloadError(f"the result of job {job_id} has no file {', '.join(sorted(lacking))}")
    with told_of(job_id, out), _arriving(out) as folder:
        before, total = 0, sum(file.bytes for file in wanted.values())
        for name, expected in wanted.items():
            if Path(name).name != name:
                raise DownloadError(
                    f"job {job_id} lists a file {name!r}, which is not a plain file name; nothing was written"
                )
            on_bytes = tracker.downloading(name, before, total)
            yield Download(calls.adapter_path(job_id, name), folder / name, expected, on_bytes)
            before += expected.bytes
    return out


def report_of(job_id: str, kind: type[ReportT]) -> Flow[ReportT]:
    """Get what a job has to say, once it has said that it has succeeded: no other has a report."""
    succeeded((yield from ask(calls.get_job(job_id))))
    return (yield from ask(calls.report(job_id, kind)))


def succeeded(job: Job) -> Job:
    """Pass on a job that has a result.

    Raises:
        JobFailedError, JobCancelledError: it never will.
        DownloadError: it has none yet.
    """
    match job.state:
        case JobState.SUCCEEDED:
            return job
        case JobState.FAILED:
            raise JobFailedError(job)
        case JobState.CANCELLED:
            raise JobCancelledError(job)
    raise DownloadError(f"job {job.id} is still {job.state}; wait for it first")


def check_free(out: Path) -> None:
    """Make sure that a result may be written to `out`, by trying in the nearest folder around it that exists.

    Raises:
        CheckpointError: something is there already, or nothing can be put there.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CheckpointError(
            f"{out} already exists and is not overwritten; remove it, or choose another folder with out or "
            "--out"
        )
    around = next(place for place in out.absolute().parents if os.path.lexists(place))
    try:
        with TemporaryDirectory(prefix=".nextrapolate-", dir=around):
            pass
    except OSError as error:
        raise CheckpointError(
            f"{out} cannot be created: {around} is not a writable folder ({error.strerror}); choose "
            "another folder with out or --out"
        ) from error


@contextmanager
def told_of(job_id: str, out: Path) -> Iterator[None]:
    """Have an error of this machine's files, such as a full disk, say what is left to do."""
    try:
        yield
    except (CheckpointError, OSError) as error:
        error.add_note(
            f"(the result of job {job_id} was to be written to {out}; nothing is lost: "
            f"`nextrapolate jobs download {job_id} --out DIR`)"
        )
        raise


@contextmanager
def _arriving(out: Path) -> Iterator[Path]:
    """Make a folder beside `out` that takes its name at the end, and is gone after an error."""
    check_free(out)
    out = out.absolute()
    partial = out.with_name(f".{out.name}-{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
