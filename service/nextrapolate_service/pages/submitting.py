"""Run a job again with other parameters, or ask for an inspection of a series."""

import secrets
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import TypeAdapter, ValidationError

from nextrapolate.methods import default_methods
from nextrapolate.schemas import (
    BacktestCreate,
    Gate,
    InspectCreate,
    JobCreate,
    JobRequest,
    Output,
)
from nextrapolate_service.auth import Tenant
from nextrapolate_service.dependencies import OpenStore, Settings, Wake
from nextrapolate_service.errors import UnusableError
from nextrapolate_service.invalid_fields import explain
from nextrapolate_service.methods import METHODS
from nextrapolate_service.pages.forms import OwnForm, SignedForm
from nextrapolate_service.pages.negotiation import PageRoute
from nextrapolate_service.pages.parameters import entered, fields_of
from nextrapolate_service.pages.rendering import page
from nextrapolate_service.submission import Submission, submit
from nextrapolate_store.errors import (
    CheckpointIncomplete,
    RemoteNotFound,
    RemoteUnavailable,
    UnusableContent,
)
from nextrapolate_store.records import JobRecord

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
    request: Request, job_id: str, tenant: Tenant, store: OpenStore, method: str | None = None
) -> Response:
    """Show what was asked, to be changed; `method` changes the method, and with it the fields."""
    record = store.jobs.get(tenant, job_id)
    return _form(request, record, record.request, method, [])


@shared.post("/jobs")
def submit_form(
    request: Request, form: OwnForm, store: OpenStore, settings: Settings, wake_ups: Wake
) -> Response:
    """Submit what was entered, and show the job; where it cannot be, show the form again and say why."""
    if series := form.first("inspect"):
        wanted: JobRequest = InspectCreate(series=series)
        job = submit(store, settings, wake_ups, Submission(form.tenant, wanted))
        return RedirectResponse(f"/jobs/{job.id}", 303)
    record = store.jobs.get(form.tenant, form.first("of"))
    try:
        wanted = _REQUEST.validate_python(_body(record.request, form))
        submission = Submission(form.tenant, wanted, form.first("once") or None)
        job = submit(store, settings, wake_ups, submission)
    except _REFUSALS as refusal:
        return _form(request, record, record.request, form.first("method.name"), _reasons(refusal), form)
    return RedirectResponse(f"/jobs/{job.id}", 303)


def _body(asked: JobRequest, form: SignedForm) -> dict[str, Any]:
    """Write what was entered over what was asked before."""
    body: dict[str, Any] = asked.model_dump(mode="json", exclude={"webhook"})
    match asked:
        case JobCreate():
            name = form.first("method.name")
            body["method"] = {"name": name}
            if name in METHODS:
                body["method"] |= entered(METHODS[name].parameters, form.fields, "method.")
            body["output"] = entered(Output, form.fields, "output.")
            body["gate"] = entered(Gate, form.fields, "gate.")
            body["until"] = form.first("until") or None
        case BacktestCreate():
            body |= {"at": form.first("at"), "horizon_steps": form.first("horizon_steps")}
            kept = {method["name"]: method for method in body["methods"] or []}
            body["methods"] = [kept.get(name, {"name": name}) for name in form.fields.get("methods", [])]
        case InspectCreate():
            body["until"] = form.first("until") or None
    return body


def _form(
    request: Request,
    record: JobRecord,
    asked: JobRequest,
    method: str | None,
    problems: list[str],
    form: SignedForm | None = None,
) -> Response:
    shown: dict[str, Any] = {"method": None, "parameters": [], "output": [], "gate": [], "backtest": None}
    if isinstance(asked, JobCreate):
        name = method if method is not None and method in METHODS else asked.method.name
        values = asked.method.model_dump() if name == asked.method.name else {}
        values |= {"horizon_steps": asked.method.horizon_steps}
        model = METHODS[name].parameters
        if form is not None:
            values |= entered(model, form.fields, "method.")
        shown |= {
            "method": name,
            "parameters": fields_of(model, values, "method."),
            "output": fields_of(Output, asked.output.model_dump(), "output."),
            "gate": fields_of(Gate, asked.gate.model_dump(), "gate."),
        }
    if isinstance(asked, BacktestCreate):
        chosen = asked.methods if asked.methods is not None else default_methods()
        shown["backtest"] = {"chosen": {one.name for one in chosen}, "asked": asked}
    return page(
        request,
        "again.html",
        status=422 if problems else 200,
        job=record,
        steps=[adapter.step for adapter in record.inputs.checkpoints],
        until=getattr(asked, "until", None) if not isinstance(asked, BacktestCreate) else None,
        methods=METHODS,
        problems=problems,
        once=secrets.token_urlsafe(16),
        **shown,
    )


def _reasons(refusal: Exception) -> list[str]:
    if not isinstance(refusal, ValidationError):
        return [str(refusal)]
    errors = [{**error, "loc": ("body", *error["loc"])} for error in refusal.errors()]
    return [f"{entry['field']}: {entry['message']}" for entry in explain(errors)]
