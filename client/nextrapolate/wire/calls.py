"""Every endpoint that a client uses, as a function to a `Call`: a request, and how its answer is read."""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from nextrapolate.errors import ParameterError
from nextrapolate.invalid_requests import making_a_request
from nextrapolate.schemas import (
    Announcement,
    CheckpointFile,
    Comparison,
    FileInfo,
    Inspection,
    Job,
    JobPage,
    JobRequest,
    JobState,
    JumpCreate,
    Labels,
    MethodList,
    Missing,
    Report,
    Response,
    Series,
    SeriesCreate,
    SeriesPage,
    Task,
)
from nextrapolate.wire.answers import reader
from nextrapolate.wire.transfers import Upload

T_co = TypeVar("T_co", covariant=True)
ReportT = TypeVar("ReportT", bound=Report | Comparison | Inspection)

_REPORTS: Mapping[Task, type[Report | Comparison | Inspection]] = {
    "extrapolate": Report,
    "backtest": Comparison,
    "inspect": Inspection,
}
_IDEMPOTENCY_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")


@dataclass(frozen=True)
class Call(Generic[T_co]):
    """One request: sent as often as the retries ask, always the same."""

    method: str
    path: str
    read: Callable[[httpx.Response], T_co]
    params: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: BaseModel | Callable[[], BaseModel] | Upload | None = None
    """A function where a file has to be read for it, which is done as the request is made."""
    lends_hub_token: bool = False


def list_methods() -> Call[MethodList]:
    """List the methods that this server runs."""
    return Call("GET", "/methods", reader(MethodList))


@making_a_request()
def create_series(
    name: str, *, base_model: str | None, lora_config: dict[str, Any] | None, labels: Labels | None
) -> Call[Series]:
    """Announce a run."""
    body = SeriesCreate(name=name, base_model=base_model, lora_config=lora_config, labels=labels or {})
    return Call("POST", "/series", reader(Series), body=body)


def get_series(series_id: str) -> Call[Series]:
    """Tell what has arrived of a run."""
    return Call("GET", _path("series", series_id), reader(Series))


def delete_series(series_id: str) -> Call[None]:
    """Remove a run."""
    return Call("DELETE", _path("series", series_id), lambda _: None)


def list_series(limit: int, cursor: str | None) -> Call[SeriesPage]:
    """Get one page of runs."""
    return Call("GET", "/series", reader(SeriesPage), params=_given(limit=limit, cursor=cursor))


def announce(series_id: str, step: int, name: CheckpointFile, upload: Upload) -> Call[Missing]:
    """Ask whether the service lacks a file of a checkpoint; it takes one that it has."""

    @making_a_request()
    def digest() -> Announcement:
        return Announcement(files={name: upload.info.sha256})

    return Call("POST", _checkpoint_path(series_id, step), reader(Missing), body=digest)


@making_a_request()
def announce_digests(series_id: str, step: int, digests: Mapping[CheckpointFile, str]) -> Call[Missing]:
    """Ask the same of files that are named by their sha256 alone."""
    body = Announcement(files=dict(digests))
    return Call("POST", _checkpoint_path(series_id, step), reader(Missing), body=body)


def put_file(series_id: str, step: int, name: CheckpointFile, upload: Upload) -> Call[FileInfo]:
    """Upload one file of a checkpoint."""
    path = _checkpoint_path(series_id, step, name)
    return Call("PUT", path, reader(FileInfo), body=upload)


@making_a_request()
def record_jump(series_id: str, step: int, job_id: str) -> Call[Series]:
    """Tell that a job's adapter was swapped into the running trainer after this step."""
    return Call(
        "POST", _path("series", series_id, "jumps"), reader(Series), body=JumpCreate(step=step, job=job_id)
    )


def submit(request: JobRequest, idempotency_key: str | None) -> Call[Job]:
    """Submit a job, under a key of its own unless the caller has one, so that a retry makes no second job.

    Raises:
        ParameterError: no header can hold the caller's key.
    """
    key = uuid.uuid4().hex if idempotency_key is None else idempotency_key
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise ParameterError(
            f"{key!r} is no idempotency key: take 1 to 255 characters of ASCII, with no space at the ends"
        )
    headers = {"Idempotency-Key": key}
    on_hub = any(reference.uri.startswith("hf://") for reference in request.checkpoints or ())
    return Call("POST", "/jobs", reader(Job), headers=headers, body=request, lends_hub_token=on_hub)


def get_job(job_id: str) -> Call[Job]:
    """Get a job as it stands."""
    return Call("GET", _path("jobs", job_id), reader(Job))


def list_jobs(state: JobState | None, limit: int, cursor: str | None) -> Call[JobPage]:
    """Get one page of jobs."""
    return Call("GET", "/jobs", reader(JobPage), params=_given(state=state, limit=limit, cursor=cursor))


def cancel(job_id: str) -> Call[Job]:
    """Ask for a job's end."""
    return Call("POST", _path("jobs", job_id, "cancel"), reader(Job))


class _OfTask(Response):
    """Of any report the field that tells what else is in it."""

    task: Task = "extrapolate"


def report(job_id: str, kind: type[ReportT]) -> Call[ReportT]:
    """Tell what a job did, on what evidence; an answer of another kind is read as a `ParameterError`."""

    def read(response: httpx.Response) -> ReportT:
        there = _REPORTS[reader(_OfTask)(response).task]
        if not issubclass(kind, there):
            raise ParameterError(
                f"the report of job {job_id} is not of kind {kind.__name__}: ask for kind={there.__name__}"
            )
        return reader(kind)(response)

    return Call("GET", _path("jobs", job_id, "report"), read, headers={"Accept": "application/json"})


def events_path(job_id: str) -> str:
    """Tell where a job's events are streamed from."""
    return _path("jobs", job_id, "events")


def adapter_path(job_id: str, name: str) -> str:
    """Tell where a file of a job's result is."""
    return _path("jobs", job_id, "adapter", name)


def _checkpoint_path(series_id: str, step: int, *name: str) -> str:
    return _path("series", series_id, "checkpoints", str(step), *name)


def _path(*parts: str) -> str:
    """Put a path together; of nothing, of dots or with a slash, it would be that of something else.

    Raises:
        ParameterError: a part of it cannot be an id.
    """
    for part in parts:
        if part in ("", ".", "..") or "/" in part:
            raise ParameterError(f"{part!r} is not an id: give the full id of a job or a series")
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _given(**params: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}
