"""/jobs: submit, look, cancel, follow."""

import re
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse
from pydantic import WithJsonSchema

from nextrapolate.schemas import Job, JobPage, JobState
from nextrapolate_service.auth import KeyFirstRoute, Tenant, WritingTenant
from nextrapolate_service.bodies import JobBody
from nextrapolate_service.dependencies import (
    Draining,
    ListQuery,
    OpenStore,
    OpenStreams,
    Settings,
    WaitForEnds,
    Wake,
)
from nextrapolate_service.events import Events, follow
from nextrapolate_service.openapi import header, operation_id, problem_responses
from nextrapolate_service.submission import Submission, submit
from nextrapolate_service.views import job_view
from nextrapolate_store.errors import StoreUnavailable

router = APIRouter(
    prefix="/jobs", tags=["jobs"], generate_unique_id_function=operation_id, route_class=KeyFirstRoute
)

LONGEST_WAIT_SECONDS = 60

_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?([0-9]{1,9})"?(?=$|[,;\s])', re.IGNORECASE)  # RFC 7240
_EVENT_STREAM = {"text/event-stream": {"schema": {"$ref": "#/components/schemas/JobEvent"}}}


class JobsQuery(ListQuery):
    """Which page of the jobs in any state, or in one."""

    state: JobState | None = None


@router.post(
    "",
    status_code=202,
    responses={
        202: {
            "headers": {
                "Location": header("the job's address"),
                "Preference-Applied": header("`wait=n`, where a wait was asked for"),
            }
        },
        **problem_responses(400, 404, 408, 409, 413, 424, 507),
    },
    summary="Submit a job",
)
async def create_job(
    request: JobBody,
    tenant: WritingTenant,
    store: OpenStore,
    settings: Settings,
    wake_ups: Wake,
    waiting: WaitForEnds,
    response: Response,
    prefer: Annotated[
        tuple[str, ...] | None,
        WithJsonSchema({"type": "string"}),  # one line says it all, but there may be several
        Header(description="`wait=n`: answer when the job has ended, or after n seconds (at most 60)"),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="for 24 hours, the same key and body give the same job; a different body gives 422",
        ),
    ] = None,
    x_hub_token: Annotated[
        str | None,
        Header(
            pattern=r"^[!-~]{1,512}$",
            description="the caller's own token for hf:// checkpoints; deleted when the job is over",
        ),
    ] = None,
) -> Job:
    """Extrapolate, backtest or inspect a run. An acknowledged job is never lost, whatever fails meanwhile."""
    submission = Submission(tenant, request, idempotency_key, x_hub_token)
    job = await run_in_threadpool(lambda: job_view(store, submit(store, settings, wake_ups, submission)))
    response.headers["Location"] = f"/jobs/{job.id}"
    if prefer and (wait := _WAIT.search(",".join(prefer))):
        seconds = min(int(wait[1]), LONGEST_WAIT_SECONDS)
        response.headers["Preference-Applied"] = f"wait={seconds}"
        if not job.state.is_final:
            with suppress(StoreUnavailable):  # the job is acknowledged, and its caller has to know its id
                await waiting.until_ended(store, job.id, seconds)
                job = await run_in_threadpool(get_job, job.id, tenant, store)
    return job


@router.get("", responses=problem_responses(), summary="List jobs")
def list_jobs(tenant: Tenant, store: OpenStore, asked: Annotated[JobsQuery, Query()]) -> JobPage:
    """One page of jobs, newest first."""
    records, next_cursor = store.jobs.list(tenant, limit=asked.limit, cursor=asked.cursor, state=asked.state)
    return JobPage(items=[job_view(store, record) for record in records], next_cursor=next_cursor)


@router.get("/{job_id}", responses=problem_responses(404), summary="Show a job")
def get_job(job_id: str, tenant: Tenant, store: OpenStore) -> Job:
    """State, stage, progress, attempt, and the place in the queue."""
    return job_view(store, store.jobs.get(tenant, job_id))


@router.post("/{job_id}/cancel", responses=problem_responses(404, 409), summary="Cancel a job")
def cancel_job(job_id: str, tenant: WritingTenant, store: OpenStore) -> Job:
    """A queued job ends at once, a running one within seconds; one that has ended cannot be cancelled."""
    return job_view(store, store.jobs.cancel(tenant, job_id))


@router.get(
    "/{job_id}/events",
    responses={
        200: {"description": "The stream.", "content": _EVENT_STREAM},
        204: {
            "description": "The job has ended, and Last-Event-ID is the id of its last event: do not "
            "reconnect."
        },
        **problem_responses(404),
    },
    response_class=Response,
    summary="Follow a job",
)
async def follow_job(reader: Events, streams: OpenStreams, draining: Draining) -> Response:
    """Server-Sent Events until the job ends, each with a JobEvent; Last-Event-ID continues after that event.

    `event:` is the JobEvent's `type`. The last event is the one whose `state` is final; a stream that ends
    before it (the server restarts) has to be opened again. If nothing happens, a comment comes every 15 s.
    """
    if reader is None:
        return Response(status_code=204)
    # Not as a generator: FastAPI 0.165 logs a traceback for each caller who leaves such a stream early.
    return EventSourceResponse(follow(reader, streams, draining), headers={"X-Accel-Buffering": "no"})
