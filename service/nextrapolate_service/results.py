"""The results of jobs, as their workers left them."""

from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nextrapolate.schemas import REPORT, AnyReport, JobState
from nextrapolate_service.errors import ResultsNotReadyError
from nextrapolate_store.errors import ResultLost
from nextrapolate_store.records import JobRecord, JobSummary
from nextrapolate_store.store import Store

_REPORT: TypeAdapter[AnyReport] = TypeAdapter(AnyReport)


def succeeded(store: Store, tenant: str, job_id: str) -> JobRecord:
    """Give a job that has results.

    Raises:
        JobNotFound: there is no such job of this tenant.
        ResultsNotReadyError: it has none, or none yet.
    """
    job = store.jobs.get(tenant, job_id)
    if job.state is not JobState.SUCCEEDED:
        hopeful = job.state in (JobState.QUEUED, JobState.RUNNING)
        advice = "wait until it has succeeded" if hopeful else f"GET /jobs/{job.id} says why"
        raise ResultsNotReadyError(
            f"job {job.id} is {job.state} and has no results: {advice}", retryable=hopeful
        )
    return job


def report_of(store: Store, job: JobSummary) -> AnyReport | None:
    """Give what a job found; None where it has no report, or one that this version cannot read."""
    if job.state is not JobState.SUCCEEDED or REPORT not in job.artifacts:
        return None
    try:
        return _read(store.job_folders.result_path(job, REPORT))
    except (ValidationError, ResultLost, OSError):  # the next one who asks may have more luck with the disk
        return None


@lru_cache(maxsize=64)  # the results of a job never change
def _read(path: Path) -> AnyReport:
    return _REPORT.validate_json(path.read_bytes(), extra="ignore")
