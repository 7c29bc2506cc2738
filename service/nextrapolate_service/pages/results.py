"""Reports, read back from the disk."""

from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nextrapolate.schemas import AnyReport, JobState
from nextrapolate_store.records import JobRecord
from nextrapolate_store.store import Store

_REPORT: TypeAdapter[AnyReport] = TypeAdapter(AnyReport)


def report_of(store: Store, job: JobRecord) -> AnyReport | None:
    """Give what a job found; None where it has no report, or one that this version cannot read."""
    if job.state is not JobState.SUCCEEDED or "report.json" not in job.artifacts:
        return None
    return _read(store.blobs.result_path(job, "report.json"))


@lru_cache(maxsize=64)  # the results of a job never change
def _read(path: Path) -> AnyReport | None:
    try:
        return _REPORT.validate_json(path.read_bytes())
    except (ValidationError, OSError):
        return None
