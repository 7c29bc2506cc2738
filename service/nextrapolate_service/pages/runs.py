"""The runs that jobs are over, as pages name them."""

from dataclasses import dataclass

from nextrapolate_store.errors import SeriesNotFound
from nextrapolate_store.records import JobSummary
from nextrapolate_store.store import Store


@dataclass(frozen=True)
class Run:
    """What a job is over.

    Attributes:
        name: the job's label `run`, else the name of its series, else nothing.
        series: id of its series; None where it has none, or none any more.
    """

    name: str
    series: str | None


class Runs:
    """Looks up runs; each series is read once."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self._names: dict[str, str | None] = {}

    def of(self, record: JobSummary) -> Run:
        """Tell the run of a job."""
        series = record.request.series
        found = self._name(series) if series else None
        name = record.request.labels.get("run") or found or ""
        return Run(name, series if found else None)

    def _name(self, series: str) -> str | None:
        if series not in self._names:
            try:
                self._names[series] = self._store.series.get(self._tenant, series).name
            except SeriesNotFound:
                self._names[series] = None
        return self._names[series]
