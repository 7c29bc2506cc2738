"""Ask for a job on a series, or for one that was run, with other parameters."""

import secrets

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import TypeAdapter, ValidationError

from nextrapolate.schemas import InspectCreate, JobRequest
from nextrapolate_service.auth import WritingTenant
from nextrapolate_service.dependencies import OpenStore, Settings, Wake
from nextrapolate_service.errors import UnusableError
from nextrapolate_service.invalid_fields import explain
from nextrapolate_service.methods import OFFERED
from nextrapolate_service.pages.asking import AskedOfSeries, Draft, read_body, shown
from nextrapolate_service.pages.forms import OwnForm, SignedForm
from nextrapolate_service.pages.negotiation import PageRoute
from nextrapolate_service.pages.rendering import page
from nextrapolate_service.submission import Submission, submit
from nextrapolate_store.errors import (
    CheckpointIncomplete,
    RemoteNotFound,
    RemoteUnavailable,
    UnusableContent,
)
from nextrapolate_store.records import JobRecord
from nextrapolate_store.store import Store

router = APIRouter(include_in_schema=False)
shared = APIRouter(route_class=PageRoute, include_in_schema=False)

_REQUEST: TypeAdapter[JobRequest] = TypeAdapter(JobRequest)
_REFUSALS = (
    ValidationError,
    UnusableError,
    UnusableContent,
    CheckpointIncomplete,
    RemoteNotFound,
    RemoteUnavailable,
)


@router.get("/jobs/{job_id}/again")
def ask_again(
    request: Request, job_id: str, tenant: WritingTenant, store: OpenStore, method: str | None = None
) -> Response:
    """Show what was asked, to be changed; `method` changes the method, and with it the fields."""
    return _form(request, Draft.again(store.jobs.get(tenant, job_id)), method, [])


@router.get("/series/{series_id}/ask")
def ask_on_series(
    request: Request,
    series_id: str,
    tenant: WritingTenant,
    store: OpenStore,
    task: AskedOfSeries = "extrapolate",
    method: str | None = None,
) -> Response:
    """Show the defaults, to be changed; `method` changes the method, and with it the fields."""
    return _form(request, Draft.on(store.series.get(tenant, series_id), task), method, [])


@shared.post("/jobs")
def submit_form(
    request: Request, form: OwnForm, store: OpenStore, settings: Settings, wake_ups: Wake
) -> Response:
    """Submit what was entered, and show the job; where it cannot be, show the form again and say why."""
    if series := form.first("inspect"):
        wanted: JobRequest = InspectCreate(series=series)
        job = submit(store, settings, wake_ups, Submission(form.tenant, wanted))
        return RedirectResponse(f"/jobs/{job.id}", 303)
    draft = _draft(store, form)
    try:
        wanted = _REQUEST.validate_python(read_body(draft.request, form))
        submission = Submission(form.tenant, wanted, form.first("once") or None)
        job = submit(store, settings, wake_ups, submission)
    except _REFUSALS as refusal:
        return _form(request, draft, form.first("method.name"), _reasons(refusal), form)
    return RedirectResponse(f"/jobs/{job.id}", 303)


def _draft(store: Store, form: SignedForm) -> Draft:
    """What the form was made from."""
    if series := form.first("on"):
        task: AskedOfSeries = "extrapolate" if form.first("method.name") else "backtest"
        return Draft.on(store.series.get(form.tenant, series), task)
    return Draft.again(store.jobs.get(form.tenant, form.first("of")))


def _form(
    request: Request,
    draft: Draft,
    method: str | None,
    problems: list[str],
    form: SignedForm | None = None,
) -> Response:
    again = isinstance(draft.source, JobRecord)
    return page(
        request,
        "asking.html",
        status=422 if problems else 200,
        job=draft.source if again else None,
        series=None if again else draft.source,
        task=draft.request.task,
        methods=OFFERED,
        problems=problems,
        once=secrets.token_urlsafe(16),
        **shown(draft, method, form),
    )


def _reasons(refusal: Exception) -> list[str]:
    if not isinstance(refusal, ValidationError):
        return [str(refusal)]
    errors = [{**error, "loc": ("body", *error["loc"])} for error in refusal.errors()]
    return [f"{entry['field']}: {entry['message']}" for entry in explain(errors)]
