"""The page of all series, and that of one: what has arrived, and how it lies."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from fastapi import APIRouter, Request, Response

from nextrapolate.reading import Reading, read
from nextrapolate.schemas import (
    BacktestCreate,
    CheckpointInfo,
    Inspection,
    Job,
    Report,
    RunGeometry,
    StepGeometry,
)
from nextrapolate_service.auth import Tenant
from nextrapolate_service.dependencies import OpenStore
from nextrapolate_service.pages.found import ON_A_PAGE
from nextrapolate_service.pages.negotiation import PageRoute
from nextrapolate_service.pages.rendering import page
from nextrapolate_service.results import found_by
from nextrapolate_service.views import job_view, series_view
from nextrapolate_store.records import ListedJob
from nextrapolate_store.store import Store

shared = APIRouter(route_class=PageRoute, include_in_schema=False)

_SHOWN, _LOOKED_AT = 100, 1000
"""Jobs of the series, among the newest of all."""


@dataclass(frozen=True)
class Step:
    """One checkpoint.

    Attributes:
        arrived: its files, and what stands in the way of using them.
        geometry: what it added to the drift; None where it was not measured.
        energy_ratio: the mean over all kinds of modules; None where it was not measured.
    """

    arrived: CheckpointInfo
    geometry: StepGeometry | None
    energy_ratio: float | None


@dataclass(frozen=True)
class Measured:
    """What a job found of a run's geometry."""

    job: Job
    report: Inspection | Report
    geometry: RunGeometry

    @cached_property
    def reading(self) -> Reading | None:
        """Whether the evidence speaks for extrapolating; None where the job's method did not look ahead."""
        match self.report:
            case Report(is_forecast=False):
                return None
        return read(self.report)

    def at(self, step: int) -> tuple[StepGeometry | None, float | None]:
        """What was found at a checkpoint, and the mean energy ratio of all modules there."""
        for index, found in enumerate(self.geometry.track):
            if found.step == step:
                kinds = self.geometry.kinds
                ratios = sum(kind.energy_ratio[index] * kind.modules for kind in kinds)
                return found, ratios / sum(kind.modules for kind in kinds)
        return None, None


@shared.get("/series")
def show_all_series(
    request: Request, tenant: Tenant, store: OpenStore, cursor: str | None = None
) -> Response:
    """List runs, newest first."""
    records, after = store.series.list(tenant, limit=ON_A_PAGE, cursor=cursor)
    return page(request, "all_series.html", series=[series_view(record) for record in records], cursor=after)


@shared.get("/series/{series_id}")
def show_series(request: Request, series_id: str, tenant: Tenant, store: OpenStore) -> Response:
    """Show what has arrived of a run, what an inspection found in it, and the jobs on it."""
    series = series_view(store.series.get(tenant, series_id))
    records, older = store.jobs.find(tenant, series_id, limit=_SHOWN, look_at=_LOOKED_AT, cursor=None)
    measured = _measured(store, records)
    steps = [
        Step(checkpoint, *(measured.at(checkpoint.step) if measured else (None, None)))
        for checkpoint in series.checkpoints
    ]
    return page(
        request,
        "series.html",
        series=series,
        steps=steps,
        jobs=[job_view(store, record) for record in records],
        older=older,
        measured=measured,
        furthest=max((step.geometry.drift_norm for step in steps if step.geometry), default=1.0),
    )


def _measured(store: Store, jobs: Iterable[ListedJob]) -> Measured | None:
    """The geometry of the most checkpoints that one of these jobs found.

    Of several an inspection's, which is about the run and no one method; of several of those the newest.
    """
    measuring = [record for record in jobs if not isinstance(record.request, BacktestCreate)]
    measuring.sort(key=lambda record: (len(record.steps), record.request.task == "inspect"), reverse=True)
    for record in measuring:
        match found_by(store, record).report:
            case Inspection() as report:
                return Measured(job_view(store, record), report, report)
            case Report(geometry=RunGeometry() as geometry) as report:
                return Measured(job_view(store, record), report, geometry)
    return None
