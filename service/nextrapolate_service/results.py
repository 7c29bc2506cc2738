"""The results of jobs, as their workers left them."""

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nextrapolate.invalid_requests import lines
from nextrapolate.schemas import REPORT, AnyReport, JobState
from nextrapolate_service.errors import ResultsNotReadyError
from nextrapolate_store.errors import ResultLost
from nextrapolate_store.one_by_one import OneByOne
from nextrapolate_store.records import JobRecord, JobSummary
from nextrapolate_store.store import Store

_log = logging.getLogger(__name__)
_unread = OneByOne(_log, "its report is not shown")

_REPORT: TypeAdapter[AnyReport] = TypeAdapter(AnyReport)


@dataclass(frozen=True)
class Found:
    """What a job has found.

    Attributes:
        report: None where it has none, or one that cannot be read.
        unreadable: why it cannot be read, for people; None where it was, or where there is none.
    """

    report: AnyReport | None = None
    unreadable: str | None = None


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


def found_by(store: Store, job: JobSummary) -> Found:
    """Read what a job has found; a report that cannot be read is logged, once."""
    if job.state is not JobState.SUCCEEDED or REPORT not in job.artifacts:
        return Found()
    try:
        return Found(_read(store.job_folders.result_path(job, REPORT)))
    except ValidationError as error:
        why = (
            f"The {REPORT} of this job was written by another version of nextrapolate, or is damaged: "
            f"{lines(error)[0]}. Its own page and all other files are as the job made them."
        )
    except ResultLost as error:
        why = f"The {error}."
    except OSError as error:  # the next one who asks may have more luck
        why = f"The server's disk did not give the {REPORT} of this job ({error.strerror}): try again."
    _unread.leave(job.id, why)
    return Found(unreadable=why)


@lru_cache(maxsize=64)  # the results of a job never change
def _read(path: Path) -> AnyReport:
    return _REPORT.validate_json(path.read_bytes(), extra="ignore")
