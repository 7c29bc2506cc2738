"""What the store gives out: frozen records, without a trace of Redis."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Discriminator

from nextrapolate.schemas import Delivery, FileInfo, JobError, JobRequest, JobState, Stage


@dataclass(frozen=True)
class FileSource:
    """A file that a job reads, on this disk."""

    kind: Literal["blob", "file"]
    location: str
    """Of a blob of the job's tenant the sha256 in hex, of a file the absolute path."""
    version: str | None = None
    """Of a file what `files.version_of` gave at submit: it must not change before the job has read it."""


@dataclass(frozen=True)
class HubFile:
    """A file of a Hugging Face repository at a commit, which never changes."""

    endpoint: str
    """The Hub's URL."""
    repo: str
    commit: str
    path: str
    bytes: int
    sha256: str | None
    """In hex; None where the repository holds the file itself and not a pointer to it."""
    kind: Literal["hub"] = "hub"


@dataclass(frozen=True)
class S3File:
    """An object in a bucket, pinned by its entity tag."""

    bucket: str
    key: str
    etag: str
    version: str | None
    """None where the bucket keeps no versions."""
    bytes: int
    kind: Literal["s3"] = "s3"


RemoteFile = HubFile | S3File
Source = Annotated[FileSource | HubFile | S3File, Discriminator("kind")]


@dataclass(frozen=True)
class InputAdapter:
    """One LoRA adapter of a trajectory: weights, configuration, and the training step it belongs to."""

    step: int
    model: Source
    config: FileSource


@dataclass(frozen=True)
class JobInputs:
    """Everything that a job reads, resolved when it was submitted."""

    checkpoints: tuple[InputAdapter, ...]
    """By ascending step."""
    jumps: tuple[InputAdapter, ...] = ()
    """Adapters that were swapped into the running trainer, each after its `step`."""
    series_name: str = ""
    """For people; empty where there is no series, and in records of early versions."""


@dataclass(frozen=True)
class JobSummary:
    """A job as of the moment it was read, without what it reads."""

    id: str
    tenant: str
    request: JobRequest
    state: JobState
    stage: Stage | None
    progress: float
    attempt: int
    """How often the job was claimed."""
    fence: int
    """Rises with each claim, to the time (ms) at least; whoever writes for the job must show the newest."""
    error: JobError | None
    artifacts: Mapping[str, FileInfo]
    """The results by name; empty unless succeeded."""
    created_at: datetime
    started_at: datetime | None
    """When it was first claimed."""
    finished_at: datetime | None
    deliveries: tuple[Delivery, ...] = ()
    """Attempts to deliver its webhook, oldest first."""
    webhook_is_signed: bool = False
    """Whether its webhook came with a secret, which is kept apart from the record."""

    @property
    def awaits_delivery(self) -> bool:
        """Whether it has a webhook that was neither delivered nor given up."""
        has_webhook = self.request.webhook is not None
        return has_webhook and all(delivery.next_at is not None for delivery in self.deliveries)


@dataclass(frozen=True, kw_only=True)
class JobRecord(JobSummary):
    """A job with everything that is known of it."""

    inputs: JobInputs

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps of its checkpoints, ascending."""
        return tuple(adapter.step for adapter in self.inputs.checkpoints)


@dataclass(frozen=True, kw_only=True)
class ListedJob(JobSummary):
    """A job as lists show it: the inputs of long runs make up most of a record, and nobody looks at them."""

    steps: tuple[int, ...]
    """Of its checkpoints, ascending."""


@dataclass(frozen=True)
class DueDelivery:
    """The right to deliver a job's webhook, until another process may."""

    job: JobRecord
    attempt: int


@dataclass(frozen=True)
class Claim:
    """The right to run a job, until the lease ends or somebody holds a newer fence."""

    job: JobRecord
    fence: int
    attempt: int


class Beat(StrEnum):
    """What the store answers to a heartbeat."""

    HELD = "held"
    CANCEL = "cancel"
    """Stop, and confirm it."""
    LOST = "lost"
    """Stop, and write nothing: the job is somebody else's."""


@dataclass(frozen=True)
class Reconciled:
    """Ids of the jobs that one pass of the reconciler touched."""

    requeued: tuple[str, ...] = ()
    """Their lease ended, and they have attempts left."""
    failed: tuple[str, ...] = ()
    """Their lease ended with the last attempt."""
    cancelled: tuple[str, ...] = ()
    """Their lease ended while they were being cancelled."""
    wake: tuple[str, ...] = ()
    """Queued jobs whose message has to be sent again; those just requeued are among them."""
    gone: tuple[str, ...] = ()
    """They were in an index, and Redis has no record of them: it must have evicted or lost it."""


@dataclass(frozen=True)
class JumpRecord:
    """An extrapolated adapter that was swapped into the running trainer after `step`."""

    step: int
    job: str
    files: Mapping[str, FileInfo]
    """The adapter's files by name, as blobs of the series' tenant: they outlive the job."""


@dataclass(frozen=True)
class Place:
    """One step of a series, and what has arrived of its checkpoint."""

    tenant: str
    series: str
    step: int
    files: Mapping[str, FileInfo]
    """By name."""
    is_full: bool
    """The series takes no further file."""


@dataclass(frozen=True)
class SeriesRecord:
    """A run, and what has arrived of it."""

    id: str
    tenant: str
    name: str
    base_model: str | None
    lora_config: Mapping[str, Any] | None
    lora_config_file: FileInfo | None
    """`lora_config` as a blob; stands in for checkpoints that bring no configuration of their own."""
    labels: Mapping[str, str]
    created_at: datetime
    checkpoints: Mapping[int, Mapping[str, FileInfo]]
    """Files by step and name, steps ascending."""
    jumps: tuple[JumpRecord, ...]
    """By ascending step."""
