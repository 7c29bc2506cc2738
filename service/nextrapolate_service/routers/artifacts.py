"""/jobs/{id}/adapter and /jobs/{id}/report: the results of a job that succeeded."""

import re
from pathlib import PurePath
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import FileResponse

from nextrapolate.schemas import REPORT, AnyReport
from nextrapolate_service.auth import Tenant
from nextrapolate_service.dependencies import OpenStore
from nextrapolate_service.errors import RangeRefusedError
from nextrapolate_service.openapi import operation_id, problem_responses
from nextrapolate_service.results import succeeded
from nextrapolate_store.store import Store

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"], generate_unique_id_function=operation_id)

MOST_RANGES = 16

_MEDIA_TYPES = {".json": "application/json", ".md": "text/markdown"}
_RANGE = re.compile(r"(?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})?|-(?P<length>[0-9]{1,18})")
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

IfNoneMatch = Annotated[str | None, Header(description="ETags the caller has; an ETag is the file's sha256")]
IfRange = Annotated[
    str | None,
    Header(description="the ETag or Last-Modified that Range is meant for; all of another file is sent"),
]
Range = Annotated[str | None, Header(description=f"`bytes=first-last`; at most {MOST_RANGES} ranges")]


@router.head("/adapter/{file}", include_in_schema=False)
@router.get(
    "/adapter/{file}",
    response_class=FileResponse,
    responses={
        200: {"description": "All of the file.", "content": _BINARY},
        206: {"description": "The byte ranges asked for.", "content": _BINARY},
        304: {"description": "The caller has this file already."},
        **problem_responses(404, 409, 416),
    },
    summary="Download a file that the job made",
)
def get_adapter_file(
    job_id: str,
    file: str,
    tenant: Tenant,
    store: OpenStore,
    if_none_match: IfNoneMatch = None,
    if_range: IfRange = None,
    range: Range = None,  # noqa: A002 - the header's name
) -> Response:
    """One that the job's `artifacts` name: what PEFT and vLLM load is adapter_model and adapter_config."""
    response = _result(store, tenant, job_id, file, if_none_match)
    if range is not None and if_range in (
        None,
        response.headers["ETag"],
        response.headers.get("Last-Modified"),
    ):
        check_ranges(range, int(response.headers["Content-Length"]))
    return response


@router.get(
    "/report", responses={200: {"model": AnyReport}, **problem_responses(404, 409)}, summary="Show the report"
)
def get_report(job_id: str, tenant: Tenant, store: OpenStore, if_none_match: IfNoneMatch = None) -> Response:
    """What was done, on what evidence, and what it cost; by the job's task."""
    return _result(store, tenant, job_id, REPORT, if_none_match)


def check_ranges(header: str, size: int) -> None:
    """Hold a Range header against a file of `size` bytes, before it can cost anything.

    Raises:
        RangeRefusedError: malformed, too many, or beyond the end of the file.
    """
    unit, _, text = header.partition("=")
    ranges = text.split(",", maxsplit=MOST_RANGES)
    if unit.strip().lower() != "bytes" or len(ranges) > MOST_RANGES:
        raise RangeRefusedError(
            f"write it as Range: bytes=first-last, with at most {MOST_RANGES} ranges", size=size
        )
    for part in ranges:
        found = _RANGE.fullmatch(part.strip())
        if not found:
            raise RangeRefusedError("write each range as first-last, first- or -length", size=size)
        first, last = int(found["first"] or 0), int(found["last"] or size)
        is_empty = found["length"] is not None and int(found["length"]) == 0
        if first >= size or last < first or is_empty:
            raise RangeRefusedError(
                f"the file has {size} bytes: ask for bytes 0-{max(size - 1, 0)}", size=size
            )


def _result(store: Store, tenant: str, job_id: str, name: str, if_none_match: str | None) -> Response:
    job = succeeded(store, tenant, job_id)
    path = store.job_folders.result_path(job, name)
    info = job.artifacts[name]
    etag = f'"{info.sha256}"'
    known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers={"ETag": etag, "Content-Length": str(info.bytes)})
    return FileResponse(
        path,
        headers={"ETag": etag},
        media_type=_MEDIA_TYPES.get(PurePath(name).suffix, "application/octet-stream"),
        stat_result=path.stat(),
    )
