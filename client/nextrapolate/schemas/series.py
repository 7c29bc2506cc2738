"""Runs whose checkpoints are posted as they are saved."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo

from nextrapolate.schemas.common import (
    CheckpointFile,
    FileInfo,
    Labels,
    NewLabels,
    Request,
    Response,
    Sha256,
    Step,
)


def _check_name(name: str, info: ValidationInfo) -> str:
    if info.context:
        return name
    if not any(sign.isprintable() and not sign.isspace() for sign in name):
        raise ValueError("a name needs at least one visible character")
    return name.strip()


class SeriesCreate(Request):
    """A run whose checkpoints will be posted."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=256, json_schema_extra={"pattern": r"\S"}),
        AfterValidator(_check_name),
    ]
    base_model: str | None = Field(
        default=None, max_length=512, description="name of the base model, for people to read"
    )
    lora_config: dict[str, Any] | None = Field(
        default=None,
        description="the run's adapter_config.json; used for checkpoints that have none of their own",
    )
    labels: NewLabels = Field(default_factory=dict)


class Announcement(Request):
    """The files of a checkpoint by their digests: files that the service already has need not be sent."""

    files: dict[CheckpointFile, Sha256] = Field(min_length=1)


class Missing(Response):
    """Answer to an announcement."""

    missing: list[CheckpointFile] = Field(description="files that still have to be sent")


class CheckpointInfo(Response):
    """Which files of one checkpoint have arrived, and what keeps it from being used."""

    step: int
    files: dict[str, FileInfo]
    problems: list[str] = Field(
        default_factory=list, description="empty once everything that the checkpoint needs has arrived"
    )


class JumpCreate(Request):
    """The job's adapter was swapped into the running trainer after this step."""

    step: Step
    job: str


class JumpInfo(Response):
    """A jump of the series: increments after `step` are measured from the job's adapter."""

    step: int
    job: str


class Series(Response):
    """A run, and the checkpoints of it that have arrived."""

    id: str
    name: str
    base_model: str | None
    labels: Labels
    created_at: datetime
    checkpoints: list[CheckpointInfo]
    jumps: list[JumpInfo]


class SeriesPage(Response):
    """One page of GET /series, newest first."""

    items: list[Series]
    next_cursor: str | None
