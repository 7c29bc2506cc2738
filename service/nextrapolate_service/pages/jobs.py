"""The page of all jobs, and that of one."""

from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from nextrapolate.reading import read
from nextrapolate.schemas import JobState
from nextrapolate_service.auth import Tenant
from nextrapolate_service.dependencies import OpenStore
from nextrapolate_service.pages import wording
from nextrapolate_service.pages.forms import OwnForm
from nextrapolate_service.pages.found import find
from nextrapolate_service.pages.negotiation import PageRoute
from nextrapolate_service.pages.rendering import page
from nextrapolate_service.pages.results import report_of
from nextrapolate_service.views import job_view

router = APIRouter(include_in_schema=False)
shared = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/")
@shared.get("/jobs")
def show_jobs(
    request: Request,
    tenant: Tenant,
    store: OpenStore,
    state: JobState | Literal[""] = "",
    text: str = "",
    cursor: str | None = None,
) -> Response:
    """List jobs, newest first."""
    chosen = state or None
    found = find(store, tenant, chosen, text.strip(), cursor)
    return page(
        request,
        "jobs.html",
        found=found,
        states=list(JobState),
        chosen=chosen,
        text=text,
        first_page=cursor is None,
        living=any(not job.state.is_final for job, _ in found.jobs),
    )


@shared.get("/jobs/{job_id}")
def show_job(request: Request, job_id: str, tenant: Tenant, store: OpenStore) -> Response:
    """Show a job: how it stands, what came of it, what happened, and what can be done."""
    record = store.jobs.get(tenant, job_id)
    events = store.jobs.events(job_id, None)
    job = job_view(store, record)
    report = report_of(store, record)
    return page(
        request,
        "job.html",
        job=job,
        asked=record.request,
        situation=wording.situation(job, datetime.now(UTC)),
        advice=wording.advice(job),
        timeline=wording.timeline(events),
        seen=events[-1].id if events else "",
        report=report,
        reading=read(report) if report else None,
    )


@shared.post("/jobs/{job_id}/cancel")
def cancel(job_id: str, form: OwnForm, store: OpenStore) -> Response:
    """Cancel a job, and show it."""
    store.jobs.cancel(form.tenant, job_id)
    return RedirectResponse(f"/jobs/{job_id}", 303)
