"""Jobs by state and by text, page by page."""

from dataclasses import dataclass

from nextrapolate.schemas import Job, JobState
from nextrapolate_service.views import job_view
from nextrapolate_store.errors import SeriesNotFound
from nextrapolate_store.records import JobRecord
from nextrapolate_store.store import Store

ON_A_PAGE = 25
_AT_ONCE = 100
_LOOKED_AT = 500
"""Jobs that one request looks at for a text: there is no index of words, and a page must not take long."""


@dataclass(frozen=True)
class Found:
    """One page of jobs, newest first.

    Attributes:
        jobs: each with the name of its run.
        cursor: of the next page; None on the last.
    """

    jobs: tuple[tuple[Job, str], ...]
    cursor: str | None


def find(store: Store, tenant: str, state: JobState | None, text: str, cursor: str | None) -> Found:
    """Look for jobs whose run, labels, method, task or id have this text in them; an empty one is in all."""
    runs = _Runs(store, tenant)
    if not text:
        records, after = store.jobs.list(tenant, limit=ON_A_PAGE, cursor=cursor, state=state)
        return Found(tuple((job_view(store, record), runs.name(record)) for record in records), after)
    found: list[tuple[JobRecord, str]] = []
    looked_at = 0
    while len(found) < ON_A_PAGE and looked_at < _LOOKED_AT:
        records, after = store.jobs.list(tenant, limit=_AT_ONCE, cursor=cursor, state=state)
        for record in records:
            looked_at, cursor = looked_at + 1, record.id
            if text.casefold() in _words(record, runs.name(record)):
                found.append((record, runs.name(record)))
                if len(found) == ON_A_PAGE:
                    break
        else:
            if after is None:
                cursor = None
                break
    return Found(tuple((job_view(store, record), run) for record, run in found), cursor)


class _Runs:
    """Names of runs; each series is read once."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self._names: dict[str, str] = {}

    def name(self, record: JobRecord) -> str:
        """Its label, else the name of its series, else nothing."""
        labelled, series = record.request.labels.get("run"), record.request.series
        if labelled or series is None:
            return labelled or ""
        if series not in self._names:
            try:
                self._names[series] = self._store.series.get(self._tenant, series).name
            except SeriesNotFound:
                self._names[series] = ""
        return self._names[series]


def _words(record: JobRecord, run: str) -> str:
    request = record.request
    method = getattr(request, "method", None)
    labels = (word for label in request.labels.items() for word in label)
    return "\n".join((record.id, run, request.task, method.name if method else "", *labels)).casefold()
