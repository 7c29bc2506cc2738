"""Jobs as the service tells of them: their states, their events, and the end that a webhook hears of."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from nextrapolate.schemas.common import FileInfo, Labels, Response, Task
from nextrapolate.schemas.job_requests import CheckpointRef, Gate, Output
from nextrapolate.schemas.methods import AnsweredMethod


class JobState(StrEnum):
    """States of a job; a retry is an event, not a state."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True where the job will never change again."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Stage(StrEnum):
    """The seven stages of a running job, in order."""

    RESOLVE = "resolve"
    LOAD = "load"
    EXTRACT = "extract"
    FIT = "fit"
    BACKTEST = "backtest"
    EXTEND = "extend"
    PUBLISH = "publish"


STAGE_WORDS: Mapping[Stage, str] = {
    Stage.RESOLVE: "finding the checkpoints",
    Stage.LOAD: "opening the checkpoints",
    Stage.EXTRACT: "reading the weights",
    Stage.FIT: "fitting the method",
    Stage.BACKTEST: "testing on the run's own past",
    Stage.EXTEND: "building the adapter",
    Stage.PUBLISH: "storing the result",
}
"""What a running job does in each, wherever people are told: on a terminal as on the pages."""


class JobError(Response):
    """Why a job failed, and who has to fix it."""

    code: str
    detail: str
    blame: Literal["user", "server"]


class Delivery(Response):
    """One attempt to tell a webhook that the job has ended."""

    attempt: int
    at: datetime
    status: int | None = Field(default=None, description="HTTP status of the answer; null if there was none")
    error: str | None = Field(
        default=None, description="why this attempt failed, and whether there will be another"
    )
    next_at: datetime | None = Field(
        default=None, description="time of the next attempt; null if this was the last one"
    )


class WebhookState(Response):
    """The state of the job's webhook."""

    url: str
    state: Literal["waiting", "sending", "delivered", "given-up"]
    deliveries: list[Delivery] = Field(description="attempts so far, oldest first")


class Job(Response):
    """A job, with its current state."""

    id: str
    state: JobState
    stage: Stage | None = None
    progress: float = Field(default=0.0, ge=0, le=1, description="share of the whole job that is done")
    attempt: int = 0
    queue_position: int | None = Field(
        default=None,
        description="0 is next; null if the job is not queued, or is held back because its tenant has its "
        "maximum of running jobs",
    )
    task: Task = "extrapolate"
    steps: list[int] = Field(description="steps of the checkpoints this job uses, ascending")
    series: str | None
    checkpoints: list[CheckpointRef] | None = Field(
        default=None, description="as they were written, of a job without a series; lists leave them out"
    )
    method: AnsweredMethod | None = Field(default=None, description="of an extrapolation")
    output: Output | None = Field(default=None, description="of an extrapolation")
    gate: Gate | None = Field(default=None, description="of an extrapolation")
    at: int | None = Field(default=None, description="of a backtest: step of the last checkpoint methods see")
    horizon_steps: int | None = Field(default=None, description="of a backtest")
    methods: list[AnsweredMethod] | None = Field(
        default=None, description="of a backtest; null if it is of all methods"
    )
    labels: Labels
    error: JobError | None = None
    artifacts: dict[str, FileInfo] = Field(default_factory=dict)
    webhook: WebhookState | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class EndedJob(Response):
    """What a webhook says about a job; GET /jobs/{id} gives the rest."""

    id: str
    task: Task
    state: JobState
    labels: Labels
    error: JobError | None


class WebhookMessage(Response):
    """The body of a webhook's POST (Standard Webhooks)."""

    type: Literal["job.succeeded", "job.failed", "job.cancelled"]
    timestamp: datetime = Field(description="when the job ended")
    data: EndedJob


class JobPage(Response):
    """One page of GET /jobs, newest first."""

    items: list[Job]
    next_cursor: str | None


class JobEvent(Response):
    """One entry of a job's event stream; `id` is the SSE id."""

    id: str
    type: Literal[
        "queued", "claimed", "progress", "requeued", "cancelling", "succeeded", "failed", "cancelled"
    ]
    at: datetime
    state: JobState
    stage: Stage | None = None
    progress: float | None = None
    attempt: int | None = None
    message: str | None = None
