"""What can end a job in the child, and whose it is to mend.

WorkerError
├── CheckpointGone        a file that was there at submit is not there any more
├── CheckpointLost        an upload is gone from the server's disk, or was damaged there
├── CheckpointChanged     a file is not any more what it was at submit
├── CheckpointUnusable    what was fetched cannot be part of a checkpoint
├── CheckpointUnsupported what was fetched shows a feature whose delta is not B A
├── SourceUnavailable     the Hub, the bucket or the folder cannot be read from here
└── NoSuchDevice          the configured device is not on this machine
"""

from typing import ClassVar, Literal

from nextrapolate.schemas import JobError
from nextrapolate_numerics import NumericsError
from nextrapolate_worker.files import is_of_a_disk_that_takes_nothing


class WorkerError(Exception):
    """Base of the worker's own errors; `str` is a sentence that says what to do."""

    code: ClassVar[str]
    blame: ClassVar[Literal["user", "server"]]


class CheckpointGone(WorkerError):
    """A file that was there when the job was submitted is not there any more."""

    code = "checkpoint-gone"
    blame = "user"


class CheckpointLost(WorkerError):
    """An upload, which stays while a job needs it, is gone from the server's disk, or was damaged there."""

    code = "checkpoint-lost"
    blame = "server"


class CheckpointChanged(WorkerError):
    """A file is not any more what it was when the job was submitted."""

    code = "checkpoint-changed"
    blame = "user"


class CheckpointUnusable(WorkerError):
    """What was fetched cannot be part of a checkpoint."""

    code = "broken-adapter"
    blame = "user"


class CheckpointUnsupported(WorkerError):
    """What was fetched shows a feature whose effect is not a plain LoRA delta."""

    code = "unsupported-adapter"
    blame = "user"


class SourceUnavailable(WorkerError):
    """The Hub, the bucket or the run's folder cannot be read from here; another attempt may be able to."""

    code = "source-unavailable"
    blame = "server"


class NoSuchDevice(WorkerError):
    """The configured device is not on this machine."""

    code = "no-such-device"
    blame = "server"


def as_job_error(error: Exception) -> JobError:
    """Say what happened as the job's record keeps it."""
    match error:
        case NumericsError():
            return JobError(code=error.code, detail=str(error), blame="user")
        case WorkerError():
            return JobError(code=error.code, detail=str(error), blame=error.blame)
        case _:
            return JobError(code="internal-error", detail=f"{type(error).__name__}: {error}", blame="server")


def is_final(error: Exception) -> bool:
    """Tell whether another attempt would end the same way: the user's input does not mend itself."""
    return as_job_error(error).blame == "user"


def is_the_machines(error: Exception) -> bool:
    """Tell whether it is this machine that lacks something: the job is none the worse for it."""
    return isinstance(error, NoSuchDevice) or (not is_final(error) and is_of_a_disk_that_takes_nothing(error))
