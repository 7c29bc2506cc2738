"""/jobs/{id}/adapter and /jobs/{id}/report: the results of a job that succeeded."""

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from nextrapolate.schemas import REPORT, AnyReport
from nextrapolate_service.auth import Tenant
from nextrapolate_service.dependencies import OpenStore
from nextrapolate_service.errors import RangeRefusedError
from nextrapolate_service.openapi import Responses, header, operation_id, problem_responses
from nextrapolate_service.results import succeeded
from nextrapolate_store.store import Store

router = APIRouter(prefix="/jobs/{job_id}", tags=["results"], generate_unique_id_function=operation_id)

MOST_RANGES = 16

_MEDIA_TYPES = {".json": "application/json", ".md": "text/markdown"}
_RANGE = re.compile(r"(?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})?|-(?P<length>[0-9]{1,18})")
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_RANGES = _BINARY | {"multipart/byteranges": {"schema": {"type": "string", "format": "binary"}}}
_WHOLE = _BINARY | {
    "application/json": {"schema": {"type": "object", "additionalProperties": True}},
    "text/markdown": {"schema": {"type": "string"}},
}
_OF_A_FILE = {"ETag": header("its sha256, quoted"), "Accept-Ranges": header("`bytes`")}


def _file_responses(whole: dict[str, Any]) -> Responses:
    """What a file may be answered with, all of it or in part."""
    return {
        200: {"description": "All of the file.", "headers": _OF_A_FILE, **whole},
        206: {
            "description": "The byte ranges asked for; several as one multipart body.",
            "content": _RANGES,
            "headers": _OF_A_FILE | {"Content-Range": header("`bytes first-last/size`, of a single range")},
        },
        304: {"description": "The caller already has this file.", "headers": {"ETag": _OF_A_FILE["ETag"]}},
        **problem_responses(404, 409, 416),
    }


@dataclass(frozen=True)
class Asked:
    """How much of a file is wanted."""

    request: Request
    if_none_match: Annotated[
        str | None, Header(description="ETags of what the caller has; an ETag is the file's sha256")
    ] = None
    if_range: Annotated[
        str | None,
        Header(
            description="the ETag or Last-Modified for which Range is meant; if the file is a different "
            "one, all of it is sent"
        ),
    ] = None
    range: Annotated[
        str | None,
        Header(
            description=f"`bytes=first-last`; at most {MOST_RANGES} ranges. A range that begins at the end "
            "of the file is answered with 416: the caller already has all of it"
        ),
    ] = None

    @property
    def byte_ranges(self) -> str | None:
        """What comes after `bytes=`; other units, and ranges of a HEAD, are passed over (RFC 9110, 14.2)."""
        unit, _, ranges = (self.range or "").partition("=")
        return ranges if self.request.method == "GET" and unit.strip().lower() == "bytes" else None


class _WholeFile(FileResponse):
    """A file of which no part is sent, whatever Range says."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as if there were no Range."""
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)


@router.head(
    "/adapter/{file}",
    name="head_adapter_file",
    response_class=Response,
    responses={
        200: {"description": "The file exists.", "headers": _OF_A_FILE},
        **problem_responses(404, 409),
    },
    summary="Ask whether a file that the job made exists",
)
@router.get(
    "/adapter/{file}",
    response_class=FileResponse,
    responses=_file_responses({"content": _WHOLE}),
    summary="Download a file that the job made",
)
def get_adapter_file(
    job_id: str, file: str, tenant: Tenant, store: OpenStore, asked: Annotated[Asked, Depends()]
) -> Response:
    """A file listed in the job's `artifacts`. PEFT and vLLM load adapter_model and adapter_config."""
    return _result(store, tenant, job_id, file, asked)


@router.head("/report", name="head_report", include_in_schema=False)
@router.get(
    "/report",
    responses=_file_responses({"model": AnyReport}),
    summary="Show the report",
)
def get_report(job_id: str, tenant: Tenant, store: OpenStore, asked: Annotated[Asked, Depends()]) -> Response:
    """What was done, on what evidence, and at what cost; its form depends on the job's task."""
    return _result(store, tenant, job_id, REPORT, asked)


def check_ranges(byte_ranges: str, size: int) -> None:
    """Hold ranges against a file of `size` bytes, before they can cost anything.

    Raises:
        RangeRefusedError: malformed, too many, or beyond the end of the file.
    """
    ranges = byte_ranges.split(",", maxsplit=MOST_RANGES)
    if len(ranges) > MOST_RANGES:
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


def _result(store: Store, tenant: str, job_id: str, name: str, asked: Asked) -> Response:
    job = succeeded(store, tenant, job_id)
    path = store.job_folders.result_path(job, name)
    info = job.artifacts[name]
    etag = f'"{info.sha256}"'
    known = [tag.strip().removeprefix("W/") for tag in (asked.if_none_match or "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers={"ETag": etag})
    ranges = asked.byte_ranges
    kind = _WholeFile if ranges is None else FileResponse
    response = kind(
        path,
        headers={"ETag": etag},
        media_type=_MEDIA_TYPES.get(PurePath(name).suffix, "application/octet-stream"),
        stat_result=path.stat(),
    )
    unchanged = asked.if_range in (None, etag, response.headers.get("Last-Modified"))
    if ranges is not None and unchanged:
        check_ranges(ranges, info.bytes)
    return response
