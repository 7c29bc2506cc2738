"""Jobs in plain words: what state they are in, what happened to them, and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from nextrapolate.methods import label
from nextrapolate.schemas import STAGE_WORDS, AnsweredMethod, Job, JobEvent, JobState, Stage, WebhookState

_STATES = {
    JobState.QUEUED: "waiting",
    JobState.RUNNING: "running",
    JobState.CANCELLING: "being cancelled",
    JobState.SUCCEEDED: "done",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
_EVENTS = {
    "queued": "Submitted.",
    "claimed": "Attempt {attempt}.",
    "requeued": "The attempt broke off; the job waits for the next attempt.",
    "cancelling": "Asked to stop.",
    "succeeded": "Done.",
    "failed": "Failed.",
    "cancelled": "Cancelled.",
}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Entry:
    """A line of a job's timeline."""

    at: datetime
    text: str


def state(of: JobState) -> str:
    """Name a state."""
    return _STATES[of]


def stage(of: Stage | None) -> str:
    """Say what a running job does."""
    return STAGE_WORDS[of] if of else "starting"


def ago(at: datetime, now: datetime) -> str:
    """Say how long ago something was."""
    return f"{duration(now - at)} ago"


def duration(span: timedelta) -> str:
    """Say how long something took, in the largest unit of which it is two: 90 minutes are not 2 hours."""
    seconds = max(span.total_seconds(), 0.0)
    size, unit = next((one for one in _UNITS if seconds >= 2 * one[0]), _UNITS[-1])
    return f"{seconds / size:.0f} {unit}"


def situation(job: Job, events: Sequence[JobEvent]) -> str:
    """Say in a sentence how a job stands after these events, and what of it is still to come."""
    match job.state:
        case JobState.QUEUED:
            return _waiting(job.queue_position, held_back=bool(events) and _holds_back(events[-1]))
        case JobState.RUNNING:
            return f"{stage(job.stage).capitalize()}."
        case JobState.CANCELLING:
            return "It was asked to stop, and will do so within seconds."
        case JobState.SUCCEEDED:
            return f"Done{_took(job)}."
        case JobState.FAILED:
            return f"Failed{_took(job)}, after {_attempts(job.attempt)}."
        case JobState.CANCELLED:
            return f"Cancelled{_took(job)}; there are no results."


def advice(job: Job) -> str | None:
    """Say what to do about a failed job; None where it did not fail."""
    if job.error is None:
        return None
    if job.error.blame == "user":
        return "Another attempt would end the same way: fix what is named here, then run it again."
    return (
        "The server caused this, not your checkpoints: run it again, and tell the operator if it fails "
        "again. The worker's log has more under the job's id."
    )


def checkpoints(steps: Sequence[int]) -> str:
    """Say how many checkpoints there are, at least one, and where."""
    if len(steps) == 1:
        return f"1 checkpoint, at step {steps[0]}"
    return f"{len(steps)} checkpoints, at steps {steps[0]} to {steps[-1]}"


def methods(of: Sequence[AnsweredMethod] | None) -> str:
    """Name the methods of a backtest, with what is not as by default; all of them where it names none."""
    return "all" if of is None else ", ".join(map(label, of))


def webhook(of: WebhookState) -> str:
    """Say what has come of telling a job's webhook so far."""
    tried, error = _attempts(len(of.deliveries)), of.deliveries[-1].error if of.deliveries else None
    match of.state:
        case "waiting":
            return "It is told when the job has ended."
        case "sending":
            return f"Not told yet, after {tried}: {error}" if error else "It is being told."
        case "delivered":
            return "It was told."
        case "given-up":
            return f"Given up after {tried}: {error}"


def timeline(events: Iterable[JobEvent]) -> list[Entry]:
    """Tell what happened to a job; of the progress only where a new stage begins, or what it waits for."""
    entries: list[Entry] = []
    last: str | None = None
    for event in events:
        happened, detail = _words(event)
        if happened not in (None, last):
            entries.append(Entry(event.at, f"{happened} {detail}".rstrip()))
            last = happened
    return entries


def _words(event: JobEvent) -> tuple[str | None, str]:
    """Say what an event is about, None where it is progress without a stage, and what it says of that."""
    said = event.message or ""
    if _holds_back(event):
        return f"It {said}.", ""
    if event.type == "progress":
        return (f"{stage(event.stage).capitalize()}." if event.stage else None), said
    happened = _EVENTS[event.type].format(attempt=event.attempt)
    return happened, f"By worker {said}" if event.type == "claimed" else said


def _holds_back(event: JobEvent) -> bool:
    """Tell whether a job left its place in the queue by this event, because of its tenant's quota."""
    return event.type == "progress" and event.state is JobState.QUEUED


def _waiting(before: int | None, *, held_back: bool) -> str:
    """Say what a queued job waits for; it has no place if it is held back, or was claimed just now."""
    if before is None and held_back:
        return "Waiting: its tenant's maximum of running jobs is reached."
    if before is None:
        return "Waiting for a worker."
    if not before:
        return "Waiting for a worker. It is next."
    return f"Waiting for a worker. {before} {'job is' if before == 1 else 'jobs are'} ahead of it."


def _attempts(number: int) -> str:
    return f"{number} {'attempt' if number == 1 else 'attempts'}"


def _took(job: Job) -> str:
    if job.started_at is None or job.finished_at is None:
        return ""
    return f" in {duration(job.finished_at - job.started_at)}"
