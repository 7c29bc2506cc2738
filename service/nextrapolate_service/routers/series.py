"""/series: runs, their checkpoints and their jumps."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BeforeValidator

from nextrapolate.schemas import (
    STEPS_END,
    CheckpointFile,
    FileInfo,
    Missing,
    Series,
    SeriesPage,
)
from nextrapolate_service import uploads
from nextrapolate_service.auth import KeyFirstRoute, Tenant, WritingTenant
from nextrapolate_service.bodies import AnnouncementBody, JumpBody, SeriesBody
from nextrapolate_service.dependencies import ListQuery, OpenStore, Settings
from nextrapolate_service.disk import require_space
from nextrapolate_service.openapi import header, operation_id, problem_responses
from nextrapolate_service.views import series_view
from nextrapolate_store.content.adapter_config import checked_facts
from nextrapolate_store.errors import BlobNotFound

router = APIRouter(
    prefix="/series", tags=["series"], generate_unique_id_function=operation_id, route_class=KeyFirstRoute
)

Step = Annotated[
    int, Path(ge=0, lt=STEPS_END, description="training step, never the index of a saved checkpoint")
]
File = Annotated[CheckpointFile, BeforeValidator(uploads.accepted_name)]


@router.post(
    "",
    status_code=201,
    responses={
        201: {"headers": {"Location": header("the series' address")}},
        **problem_responses(400, 408, 413, 507),
    },
    summary="Begin a series",
)
def create_series(
    request: SeriesBody, tenant: WritingTenant, store: OpenStore, settings: Settings, response: Response
) -> Series:
    """Announce a run whose checkpoints will be posted."""
    if request.lora_config is not None:
        checked_facts(request.lora_config)
    store.check_folder()
    require_space(settings)
    series = series_view(store.series.create(tenant, request))
    response.headers["Location"] = f"/series/{series.id}"
    return series


@router.get("", responses=problem_responses(), summary="List series")
def list_series(tenant: Tenant, store: OpenStore, asked: Annotated[ListQuery, Query()]) -> SeriesPage:
    """One page of runs, newest first."""
    records, next_cursor = store.series.list(tenant, limit=asked.limit, cursor=asked.cursor)
    return SeriesPage(items=[series_view(record) for record in records], next_cursor=next_cursor)


@router.get("/{series_id}", responses=problem_responses(404), summary="Show a series")
def get_series(series_id: str, tenant: Tenant, store: OpenStore) -> Series:
    """The run's checkpoints, and what keeps each of them from being used."""
    return series_view(store.series.get(tenant, series_id))


@router.delete("/{series_id}", status_code=204, responses=problem_responses(404), summary="Delete a series")
def delete_series(series_id: str, tenant: WritingTenant, store: OpenStore) -> None:
    """Its jobs stay. Files that no job and no other series needs are deleted, after a day at the earliest."""
    store.series.delete(tenant, series_id)


@router.post(
    "/{series_id}/checkpoints/{step}",
    responses=problem_responses(400, 404, 408, 409, 413),
    summary="Announce a checkpoint, and learn which files to upload",
)
def announce_checkpoint(
    series_id: str, step: Step, request: AnnouncementBody, tenant: WritingTenant, store: OpenStore
) -> Missing:
    """Files that are already stored, for any run, are added to this checkpoint without another transfer.

    To resume an interrupted upload, announce its files again: only what is missing has to be sent.
    """
    place = store.series.place(tenant, series_id, step)
    return Missing(missing=uploads.announce(store, place, request.files))


@router.put(
    "/{series_id}/checkpoints/{step}/{file}",
    responses=problem_responses(400, 404, 409, 413, 507),
    summary="Upload one file of a checkpoint",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put_checkpoint_file(
    series_id: str,
    step: Step,
    file: File,
    request: Request,
    tenant: WritingTenant,
    store: OpenStore,
    settings: Settings,
    content_digest: Annotated[str | None, Header(description="RFC 9530: sha-256=:BASE64:")] = None,
    content_length: Annotated[int | None, Header(ge=0, include_in_schema=False)] = None,
) -> FileInfo:
    """The raw body is the file. It is checked while it streams, and kept only if it can be used.

    Sending the same content again changes nothing; other content for the same step is a conflict.
    """
    expected_sha256 = uploads.announced_digest(content_digest)
    uploads.check_length(file, content_length, settings)
    await run_in_threadpool(store.check_folder)
    await run_in_threadpool(require_space, settings, content_length or 0)
    place = await run_in_threadpool(store.series.place, tenant, series_id, step)
    receiver = uploads.Receiver(store, settings, place, file)
    return await receiver.receive(
        request.stream(), expected_sha256=expected_sha256, expected_bytes=content_length or 0
    )


@router.head(
    "/{series_id}/checkpoints/{step}/{file}",
    response_class=Response,
    responses={
        200: {
            "description": "It has arrived.",
            "headers": {
                "Content-Length": header("its bytes", "integer"),
                "ETag": header("its sha256, quoted"),
            },
        },
        **problem_responses(404),
    },
    summary="Ask whether a file of a checkpoint is there",
)
def head_checkpoint_file(
    series_id: str, step: Step, file: File, tenant: Tenant, store: OpenStore
) -> Response:
    """200 with its length and its sha256 as the ETag where it has arrived, 404 where it has not."""
    info = store.series.place(tenant, series_id, step).files.get(file)
    if info is None:
        raise BlobNotFound(f"{file} of step {step} has not arrived: PUT it here")
    return Response(headers={"Content-Length": str(info.bytes), "ETag": f'"{info.sha256}"'})


@router.post(
    "/{series_id}/jumps",
    status_code=201,
    responses=problem_responses(400, 404, 408, 409, 413, 507),
    summary="Record a jump",
)
def record_jump(
    series_id: str, request: JumpBody, tenant: WritingTenant, store: OpenStore, settings: Settings
) -> Series:
    """Record that a job's adapter was swapped into the running trainer after this step.

    Later increments are measured from that adapter, and nothing has to be uploaded again.
    """
    store.check_folder()
    require_space(settings)
    return series_view(store.series.add_jump(tenant, series_id, request.step, request.job))
