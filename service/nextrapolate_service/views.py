"""From the store's records to what the API answers."""

from typing import Any, Literal

from nextrapolate.schemas import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    BacktestCreate,
    CheckpointInfo,
    Job,
    JobCreate,
    JobRequest,
    JobState,
    JumpInfo,
    Series,
    WebhookState,
)
from nextrapolate_store.records import JobRecord, JobSummary, ListedJob, SeriesRecord
from nextrapolate_store.store import Store


def job_view(store: Store, job: JobRecord | ListedJob) -> Job:
    """A job as the API shows it; asks the store for the place of a queued one."""
    request = job.request
    return Job(
        id=job.id,
        state=job.state,
        stage=job.stage,
        progress=job.progress,
        attempt=job.attempt,
        queue_position=store.jobs.queue_position(job.id) if job.state is JobState.QUEUED else None,
        task=request.task,
        steps=list(job.steps),
        series=request.series,
        checkpoints=request.checkpoints if isinstance(job, JobRecord) else None,
        **_of_its_task(request),
        labels=request.labels,
        error=job.error,
        artifacts=dict(job.artifacts),
        webhook=_webhook(job),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _webhook(job: JobSummary) -> WebhookState | None:
    webhook, deliveries = job.request.webhook, list(job.deliveries)
    if webhook is None:
        return None
    state: Literal["waiting", "sending", "delivered", "given-up"] = "waiting"
    if job.state.is_final:
        state = "sending"
    if deliveries and deliveries[-1].next_at is None:
        state = "given-up" if deliveries[-1].error else "delivered"
    return WebhookState(url=webhook.url, state=state, deliveries=deliveries)


def _of_its_task(request: JobRequest) -> dict[str, Any]:
    match request:
        case JobCreate(method=method, output=output, gate=gate):
            return {"method": method, "output": output, "gate": gate}
        case BacktestCreate(at=at, horizon_steps=horizon_steps, methods=methods):
            return {"at": at, "horizon_steps": horizon_steps, "methods": methods}
    return {}


def series_view(series: SeriesRecord) -> Series:
    """A series as the API shows it."""
    return Series(
        id=series.id,
        name=series.name,
        base_model=series.base_model,
        labels=dict(series.labels),
        created_at=series.created_at,
        checkpoints=[_checkpoint(series, step) for step in series.checkpoints],
        jumps=[JumpInfo(step=jump.step, job=jump.job) for jump in series.jumps],
    )


def _checkpoint(series: SeriesRecord, step: int) -> CheckpointInfo:
    files = dict(series.checkpoints[step])
    problems = []
    if ADAPTER_MODEL not in files:
        problems.append(f"{ADAPTER_MODEL} has not arrived")
    if ADAPTER_CONFIG not in files and series.lora_config is None:
        problems.append(
            f"{ADAPTER_CONFIG} has not arrived, and the series has no lora_config that could be used instead"
        )
    return CheckpointInfo(step=step, files=files, problems=problems)
