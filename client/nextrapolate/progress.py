"""How far a task is, from the first uploaded byte to the last downloaded one, on one scale."""

from collections.abc import Callable
from dataclasses import dataclass

from nextrapolate.schemas import STAGE_WORDS, Job, JobEvent, JobState, Stage
from nextrapolate.wire.transfers import OnBytes

UPLOAD_SHARE = 0.2
DOWNLOAD_SHARE = 0.05


@dataclass(frozen=True)
class Progress:
    """A moment of a task.

    Attributes:
        stage: "upload", "queue", one of the seven stages of a running job (`schemas.Stage`), or "download".
        fraction: share of the whole that is done, 0 to 1; a job that has to run again falls back.
        message: one line for people.
        job: id of the job, once it was submitted: it goes on whatever happens here.
    """

    stage: str
    fraction: float
    message: str
    job: str | None = None


OnProgress = Callable[[Progress], None]


class Tracker:
    """Turns bytes and events into `Progress` on one scale: the upload's share, the job's, the download's."""

    def __init__(self, on_progress: OnProgress | None, *, uploads: bool, downloads: bool) -> None:
        self._on_progress = on_progress
        self._job_starts = UPLOAD_SHARE if uploads else 0.0
        self._job_ends = 1.0 - DOWNLOAD_SHARE if downloads else 1.0
        self._stage, self._done = "queue", 0.0
        self._job: str | None = None

    def uploading(self, message: str, before: int, total: int) -> OnBytes:
        """Make a byte counter for one file: `before` bytes of `total` had been sent when it began."""
        return lambda sent: self._tell("upload", self._job_starts * (before + sent) / total, message)

    def submitted(self, job: Job) -> None:
        """Tell the job's id, by which it can be found again whatever happens here."""
        self._job = job.id
        self._tell(self._stage, self._job_starts, f"job {job.id}")

    def event(self, event: JobEvent) -> None:
        """Take in one event of the job."""
        match event.state:
            case JobState.QUEUED:
                self._stage, self._done = "queue", 0.0
            case JobState.SUCCEEDED:
                self._stage, self._done = event.stage or self._stage, 1.0
            case _:
                self._stage = event.stage or (Stage.RESOLVE if event.type == "claimed" else self._stage)
                self._done = self._done if event.progress is None else event.progress
        fraction = self._job_starts + self._done * (self._job_ends - self._job_starts)
        doing = STAGE_WORDS[event.stage] if event.stage else event.type
        message = (
            (f"worker {event.message} is running it") if event.type == "claimed" else event.message or doing
        )
        self._tell(self._stage, fraction, message)

    def downloading(self, message: str, before: int, total: int) -> OnBytes:
        """Make a byte counter for one file: `before` bytes of `total` had arrived when it began."""
        return lambda got: self._tell(
            "download", self._job_ends + DOWNLOAD_SHARE * (before + got) / total, message
        )

    def _tell(self, stage: str, fraction: float, message: str) -> None:
        if self._on_progress:
            self._on_progress(Progress(stage, min(1.0, fraction), message, self._job))
