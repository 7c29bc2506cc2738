"""What worker and child say to each other: a JSON object a line, down the child's stdin, up its stdout."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from nextrapolate.schemas import FileInfo, JobError, JobRequest, Stage
from nextrapolate_store.records import JobInputs
from nextrapolate_worker.settings import Computing


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def line(self) -> str:
        """Give the message as the line that carries it."""
        return self.model_dump_json() + "\n"


class Start(_Message):
    """Everything a child needs to know; it reads nothing else but the files named here."""

    type: Literal["start"] = "start"
    job: str
    started_at: datetime | None = Field(default=None, description="when the job was first claimed")
    fence: int
    tenant: str
    request: JobRequest
    inputs: JobInputs
    data_dir: Path
    folder: Path = Field(description="empty folder for the artifacts")
    stages: Path = Field(description="folder for what an attempt leaves to the next one; need not be there")
    computing: Computing
    hub_token: str | None = Field(
        default=None, repr=False, description="the caller's own, for this job alone"
    )


class Ready(_Message):
    """All is imported: whatever ends the child from now on may be the work's doing."""

    type: Literal["ready"] = "ready"


class Progress(_Message):
    """A stage has come this far; `fraction` is the share of the whole job."""

    type: Literal["progress"] = "progress"
    stage: Stage
    fraction: float


class Done(_Message):
    """The artifacts lie in the folder, flushed to disk; the stages took so many seconds."""

    type: Literal["done"] = "done"
    artifacts: dict[str, FileInfo]
    stage_seconds: dict[Stage, float]


class Failed(_Message):
    """The attempt cannot succeed. `final` is true where no other can, `machine` where one elsewhere may."""

    type: Literal["failed"] = "failed"
    error: JobError
    final: bool
    machine: bool = False


Answer = Ready | Progress | Done | Failed
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="type")])


def parse_answer(line: str) -> Answer:
    """Parse one line of the child's stdout.

    Raises:
        pydantic.ValidationError: the line is not a message.
    """
    return _ANSWER.validate_json(line)
