"""What the records on disk hold; where they lie says journal.py."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from nextrapolate.schemas import Delivery, FileInfo, JobEvent, JobRequest, SeriesCreate
from nextrapolate_store.records import JobInputs, JobRecord, JumpRecord


class Document(BaseModel):
    """Base of all of them; one of another format is not read."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1


class JobDocument(Document):
    """job.json: what was asked, and what that meant then."""

    id: str
    tenant: str
    created_at: datetime
    request: JobRequest
    inputs: JobInputs
    idempotency_key: str | None
    body_digest: str
    webhook_is_signed: bool = False


class EndDocument(Document):
    """end.json: a job as it ended, and the events that tell of its states; those of progress are left out."""

    job: JobRecord
    events: tuple[JobEvent, ...]


class WebhookDocument(Document):
    """webhook.json: the attempts to deliver a job's webhook, once there will be no other."""

    deliveries: tuple[Delivery, ...]


class SeriesDocument(Document):
    """series.json: a run, as it was announced."""

    id: str
    tenant: str
    created_at: datetime
    request: SeriesCreate
    lora_config_file: FileInfo | None


class KeyDocument(Document):
    """An API key, as it was made."""

    id: str
    digest: str
    tenant: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime


class RevocationDocument(Document):
    """The end of an API key."""

    revoked_at: datetime


class QuotasDocument(Document):
    """Quotas of a tenant's own, by name."""

    tenant: str
    quotas: dict[str, int]


class FileDocument(Document):
    """One file of a checkpoint, a blob of the series' tenant."""

    file: FileInfo


class JumpDocument(Document):
    """One jump of a series."""

    jump: JumpRecord


@dataclass(frozen=True)
class SeriesHistory:
    """Everything that is written down about a series."""

    document: SeriesDocument
    checkpoints: Mapping[int, Mapping[str, FileInfo]]
    """Files by step and name."""
    jumps: tuple[JumpRecord, ...]

    def files(self) -> Iterator[FileInfo]:
        """All blobs that the series needs."""
        for files in (*self.checkpoints.values(), *(jump.files for jump in self.jumps)):
            yield from files.values()
        if self.document.lora_config_file is not None:
            yield self.document.lora_config_file


class InputsOnly(Document):
    """Of job.json, what says which blobs the job needs."""

    tenant: str
    inputs: JobInputs
