"""The page of all jobs, and that of one."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BeforeValidator

from nextrapolate.reading import read
from nextrapolate.schemas import JobState
from nextrapolate_service.auth import Tenant
from nextrapolate_service.dependencies import OpenStore
from nextrapolate_service.pages import wording
from nextrapolate_service.pages.forms import OwnForm
from nextrapolate_service.pages.found import find
from nextrapolate_service.pages.negotiation import PageRoute
from nextrapolate_service.pages.rendering import page
from nextrapolate_service.pages.runs import Runs
from nextrapolate_service.results import found_by
from nextrapolate_service.views import job_view

router = APIRouter(include_in_schema=False)
shared = APIRouter(route_class=PageRoute, include_in_schema=False)

AnyState = Annotated[JobState | None, Query(), BeforeValidator(lambda chosen: chosen or None)]
"""A state to look for; the empty choice stands for all of them."""


@router.get("/")
@shared.get("/jobs")
def show_jobs(
    request: Request,
    tenant: Tenant,
    store: OpenStore,
    state: AnyState = None,
    text: str = "",
    cursor: str | None = None,
) -> Response:
    """List jobs, newest first."""
    found = find(store, tenant, state, text.strip(), cursor)
    return page(
        request,
        "jobs.html",
        found=found,
        states=list(JobState),
        chosen=state,
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
    found = found_by(store, record)
    return page(
        request,
        "job.html",
        job=job,
        run=Runs(store, tenant).of(record),
        situation=wording.situation(job, events),
        advice=wording.advice(job),
        timeline=wording.timeline(events),
        report=found.report,
        unreadable=found.unreadable,
        reading=read(found.report) if found.report else None,
    )


@shared.post("/jobs/{job_id}/cancel")
def cancel(job_id: str, form: OwnForm, store: OpenStore) -> Response:
    """Cancel a job, and show it."""
    store.jobs.cancel(form.tenant, job_id)
    return RedirectResponse(f"/jobs/{job_id}", 303)
