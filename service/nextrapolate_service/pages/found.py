"""Jobs by state and by text, page by page."""

from dataclasses import dataclass

from nextrapolate.schemas import Job, JobState
from nextrapolate_service.pages.runs import Run, Runs
from nextrapolate_service.views import job_view
from nextrapolate_store.store import Store

ON_A_PAGE = 25
_LOOKED_AT = 1000
"""Jobs that one request looks at for a text: there is no index of words, and Redis should not be held up."""


@dataclass(frozen=True)
class Found:
    """One page of jobs, newest first.

    Attributes:
        jobs: each with its run.
        cursor: of the next page; None on the last.
    """

    jobs: tuple[tuple[Job, Run], ...]
    cursor: str | None


def find(store: Store, tenant: str, state: JobState | None, text: str, cursor: str | None) -> Found:
    """Look for jobs in a state, or in any, that have a text in their words, or whatever they have."""
    if text:
        records, after = store.jobs.find(
            tenant, text, limit=ON_A_PAGE, look_at=_LOOKED_AT, cursor=cursor, state=state
        )
    else:
        records, after = store.jobs.list(tenant, limit=ON_A_PAGE, cursor=cursor, state=state)
    runs = Runs(store, tenant)
    return Found(tuple((job_view(store, record), runs.of(record)) for record in records), after)
