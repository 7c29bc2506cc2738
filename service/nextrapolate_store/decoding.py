"""From Redis' hashes and stream entries, all strings, to records, and back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from nextrapolate.schemas import (
    AS_KEPT,
    Delivery,
    FileInfo,
    JobError,
    JobEvent,
    JobRequest,
    JobState,
    SeriesCreate,
    Stage,
)
from nextrapolate_store.errors import RecordUnreadable
from nextrapolate_store.records import JobInputs, JobRecord, JumpRecord, ListedJob, SeriesRecord

Fields = Mapping[str, str]


@dataclass(frozen=True)
class _Step:
    step: int


@dataclass(frozen=True)
class _Steps:
    """`JobInputs` without what takes long to read: a path or a digest, and a version, of each file."""

    checkpoints: tuple[_Step, ...]


REQUEST: TypeAdapter[JobRequest] = TypeAdapter(JobRequest)
INPUTS = TypeAdapter(JobInputs)
_STEPS = TypeAdapter(_Steps)
ARTIFACTS = TypeAdapter(dict[str, FileInfo])
JUMP = TypeAdapter(JumpRecord)


def pairs(reply: list[str]) -> Fields:
    """Read a hash as a script replies it."""
    return dict(zip(reply[::2], reply[1::2], strict=True))


def when(milliseconds: str | int) -> datetime:
    """Read a time of Redis' clock."""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def timestamp_ms(time: datetime) -> int:
    """Write a time down as `when` reads it."""
    return round(time.timestamp() * 1000)


def job_record(fields: Fields) -> JobRecord:
    """Read a job's hash.

    Raises:
        RecordUnreadable: it is of another version, or was damaged.
    """
    with _of_this_version(fields):
        return JobRecord(inputs=INPUTS.validate_json(fields["inputs"]), **_summary(fields))


def listed_job(fields: Fields) -> ListedJob:
    """Read of a job's hash what lists show.

    Raises:
        RecordUnreadable: that is of another version, or was damaged.
    """
    with _of_this_version(fields):
        steps = tuple(checkpoint.step for checkpoint in _STEPS.validate_json(fields["inputs"]).checkpoints)
        return ListedJob(steps=steps, **_summary(fields))


@contextmanager
def _of_this_version(fields: Fields) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError) as error:
        why = " ".join(repr(error).split())
        raise RecordUnreadable(
            f"the record of the job {fields.get('id', 'without an id')} in Redis is damaged, or written "
            f"by a version that this nextrapolate cannot read: {why:.200}"
        ) from error


def _summary(fields: Fields) -> dict[str, Any]:
    state = JobState(fields["state"])
    return {
        "id": fields["id"],
        "tenant": fields["tenant"],
        "request": REQUEST.validate_json(fields["request"], context=AS_KEPT),
        "state": state,
        "stage": Stage(fields["stage"]) if fields["stage"] else None,
        "progress": float(fields["progress"]),
        "attempt": int(fields["attempt"]),
        "fence": int(fields["fence"]),
        # The hash keeps the error of an attempt that was followed by another, too.
        "error": JobError.model_validate_json(fields["last_error"]) if state is JobState.FAILED else None,
        "artifacts": ARTIFACTS.validate_json(fields["artifacts"]),
        "created_at": when(fields["created_at"]),
        "started_at": when(fields["started_at"]) if "started_at" in fields else None,
        "finished_at": when(fields["finished_at"]) if "finished_at" in fields else None,
        "deliveries": _deliveries(fields),
        "webhook_is_signed": fields.get("webhook_is_signed") == "1",
    }


def _deliveries(fields: Fields) -> tuple[Delivery, ...]:
    found = [Delivery.model_validate_json(fields[name]) for name in fields if name.startswith("delivery:")]
    return tuple(sorted(found, key=lambda delivery: delivery.attempt))


def job_fields(job: JobRecord) -> dict[str, str]:
    """Write the hash of a job that has ended."""
    attempts = {f"delivery:{delivery.attempt}": delivery.model_dump_json() for delivery in job.deliveries}
    times = {"created_at": job.created_at, "started_at": job.started_at, "finished_at": job.finished_at}
    return {
        "id": job.id,
        "tenant": job.tenant,
        "request": job.request.model_dump_json(),
        "inputs": INPUTS.dump_json(job.inputs).decode(),
        "state": job.state,
        "stage": job.stage or "",
        "progress": str(job.progress),
        "message": "",
        "attempt": str(job.attempt),
        "fence": str(job.fence),
        "last_error": job.error.model_dump_json() if job.error else "",
        "artifacts": ARTIFACTS.dump_json(dict(job.artifacts)).decode(),
        "webhook_is_signed": str(int(job.webhook_is_signed)),
        "delivery": str(job.deliveries[-1].attempt if job.deliveries else 0),
        **attempts,
        **{name: str(timestamp_ms(time)) for name, time in times.items() if time is not None},
    }


def job_event(event_id: str, fields: Fields) -> JobEvent:
    """Read an entry of a job's stream; its id begins with its time."""
    known = {name: value for name, value in fields.items() if value}
    return JobEvent.model_validate({"id": event_id, "at": when(event_id.split("-")[0]), **known})


def event_fields(event: JobEvent) -> list[str]:
    """Write the fields and values of a stream entry, in a row."""
    fields = event.model_dump(mode="json", exclude={"id", "at"})
    return [text for name, value in fields.items() for text in (name, "" if value is None else str(value))]


def series_record(record: Fields, files: Fields, jumps: Fields) -> SeriesRecord:
    """Read the three hashes of a series."""
    request = SeriesCreate.model_validate_json(record["request"], context=AS_KEPT)
    config = record.get("lora_config_file")
    checkpoints: dict[int, dict[str, FileInfo]] = {}
    for path in sorted(files, key=lambda path: int(path.split("/")[0])):
        step, name = path.split("/")
        checkpoints.setdefault(int(step), {})[name] = FileInfo.model_validate_json(files[path])
    return SeriesRecord(
        id=record["id"],
        tenant=record["tenant"],
        name=request.name,
        base_model=request.base_model,
        lora_config=request.lora_config,
        lora_config_file=FileInfo.model_validate_json(config) if config else None,
        labels=request.labels,
        created_at=when(record["created_at"]),
        checkpoints=checkpoints,
        jumps=tuple(JUMP.validate_json(jumps[step]) for step in sorted(jumps, key=int)),
    )
