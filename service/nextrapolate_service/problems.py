"""Every error leaves as RFC 9457 problem+json: what went wrong, whose it is, and what to do."""

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from nextrapolate.schemas import Problem
from nextrapolate_service.context import MAX_JSON_BYTES, MAX_JSON_SECONDS, REQUEST_ID
from nextrapolate_service.errors import DiskBrokenError, DiskReserveError, ServiceError, UploadBrokenOffError
from nextrapolate_service.invalid_fields import explain
from nextrapolate_service.pages.failures import failure_page
from nextrapolate_service.pages.negotiation import asks_for_html
from nextrapolate_store import errors as store_errors
from nextrapolate_store.files import NO_SPACE
from nextrapolate_store.tenants import Quota

PROBLEM_JSON = "application/problem+json"

_STORE_PROBLEMS: Mapping[type[store_errors.StoreError], tuple[int, str]] = {
    store_errors.StoreUnavailable: (503, "store-unavailable"),
    store_errors.StoreLost: (503, "store-lost"),
    store_errors.StoreIncompatible: (503, "store-incompatible"),
    store_errors.StoreMismatched: (503, "store-mismatched"),
    store_errors.RecordUnreadable: (503, "record-unreadable"),
    store_errors.RecordDamaged: (500, "record-damaged"),
    store_errors.KeyUnknown: (401, "unauthorized"),
    store_errors.KeyRevoked: (401, "key-revoked"),
    store_errors.SessionEnded: (401, "session-ended"),
    store_errors.JobNotFound: (404, "job-not-found"),
    store_errors.SeriesNotFound: (404, "series-not-found"),
    store_errors.BlobNotFound: (404, "file-not-found"),
    store_errors.ArtifactNotFound: (404, "file-not-found"),
    store_errors.ResultLost: (500, "result-lost"),
    store_errors.JobFinished: (409, "job-finished"),
    store_errors.JobNotSucceeded: (409, "job-not-succeeded"),
    store_errors.FileTaken: (409, "file-conflict"),
    store_errors.JumpTaken: (409, "jump-conflict"),
    store_errors.SeriesFull: (422, "series-full"),
    store_errors.IdempotencyInFlight: (409, "idempotency-in-flight"),
    store_errors.IdempotencyMismatch: (422, "idempotency-mismatch"),
    store_errors.CheckpointIncomplete: (422, "checkpoint-incomplete"),
    store_errors.DigestMismatch: (422, "digest-mismatch"),
    store_errors.BrokenAdapter: (422, "broken-adapter"),
    store_errors.UnsupportedAdapter: (422, "unsupported-adapter"),
    store_errors.FileTooLarge: (413, "body-too-large"),
    store_errors.RemoteNotFound: (422, "checkpoint-not-found"),
    store_errors.RemoteChanged: (422, "checkpoint-changed"),
    store_errors.RemoteUnavailable: (424, "source-unavailable"),
    store_errors.InvalidCursor: (422, "invalid-cursor"),
}
_RETRY_AFTER: Mapping[str, str] = {
    "store-unavailable": "2",
    "store-lost": "5",
    "store-mismatched": "5",
    "record-unreadable": "5",
    "idempotency-in-flight": "1",
    "source-unavailable": "5",
}

_AT_ONCE = {"digest-mismatch"}
"""What may go well the next time, without a wait: a file that was garbled on its way."""

_QUOTA_RETRY_AFTER: Mapping[Quota, str] = {Quota.QUEUED_JOBS: "10", Quota.UPLOADS: "2"}
"""Quotas that free themselves, and when to look again; any other is a matter for people."""

_MOST_IN_DETAIL = 5
_MOST_EXPLAINED = 20
"""How many mistakes of a request are named, in a sentence and in `errors`: the first lead to the others."""

_BROKEN = (errno.EROFS, errno.EIO, errno.ESTALE)
"""What a disk says that is no more than a part of the data folder's machine."""

_HTTP_PROBLEMS: Mapping[int, tuple[str, str]] = {
    400: (
        "malformed-request",
        "the request cannot be read: send valid HTTP with a JSON body, without numbers of thousands of "
        "digits and thousands of levels",
    ),
    404: ("route-not-found", "there is nothing at this address"),
    405: ("method-not-allowed", "this address does not support this method"),
    408: ("body-too-slow", f"the body took longer than {MAX_JSON_SECONDS:g} s to arrive: send it again"),
    413: ("body-too-large", f"the body is larger than {MAX_JSON_BYTES} bytes: send less in one request"),
}

ADVICE: Mapping[str, str] = {
    "job-not-found": "GET /jobs lists the existing ones",
    "series-not-found": "GET /series lists the existing ones",
    "route-not-found": "GET /openapi.json lists what there is",
    "method-not-allowed": "GET /openapi.json lists the methods that it supports",
}
"""Which request helps, by the code of the problem: whoever raises it need not know the routes."""


def install(app: FastAPI) -> None:
    """Make the app answer every error as a problem."""
    app.exception_handler(ServiceError)(_on_service_error)
    for kind in _STORE_PROBLEMS:
        app.exception_handler(kind)(_on_store_error)
    app.exception_handler(store_errors.QuotaExceeded)(_on_quota)
    app.exception_handler(RequestValidationError)(_on_invalid_request)
    app.exception_handler(HTTPException)(_on_http_error)
    app.exception_handler(ClientDisconnect)(_on_client_gone)
    app.exception_handler(OSError)(_on_os_error)
    app.exception_handler(Exception)(_on_anything_else)


def _answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    retryable: bool = False,
    blame: Literal["user", "server"] | None = None,
    errors: Sequence[dict[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    request.state.problem = code
    advice = ADVICE.get(code)
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=f"{detail}: {advice}" if advice else detail,
        advice=advice,
        code=code,
        retryable=retryable,
        blame=blame or ("user" if status < 500 and status != HTTPStatus.FAILED_DEPENDENCY else "server"),
        request_id=request.state.request_id,
        errors=list(errors),
    )
    if asks_for_html(request.scope):
        return failure_page(request, problem)
    challenge = {"WWW-Authenticate": 'Bearer realm="nextrapolate"'} if status == 401 else {}
    return Response(
        json.dumps(problem.model_dump(mode="json")),  # in ASCII: what is quoted need not be valid Unicode
        status,
        headers={**challenge, **(headers or {}), REQUEST_ID: problem.request_id},
        media_type=PROBLEM_JSON,
    )


async def _on_service_error(request: Request, error: ServiceError) -> Response:
    detail = str(error)
    return _answer(
        request,
        error.status,
        error.code,
        detail,
        retryable=error.retryable,
        blame=error.blame,
        errors=[{"field": error.field, "message": detail}] if error.field else [],
        headers=error.headers,
    )


async def _on_store_error(request: Request, error: store_errors.StoreError) -> Response:
    status, code = _STORE_PROBLEMS[type(error)]
    wait = _RETRY_AFTER.get(code)
    headers = {"Retry-After": wait} if wait else None
    field = getattr(error, "field", None)
    return _answer(
        request,
        status,
        code,
        str(error),
        retryable=wait is not None or code in _AT_ONCE,
        errors=[{"field": field, "message": str(error)}] if field else [],
        headers=headers,
    )


async def _on_quota(request: Request, error: store_errors.QuotaExceeded) -> Response:
    wait = _QUOTA_RETRY_AFTER.get(error.quota) if error.quota else None
    use = asdict(error.usage) if error.usage else {}
    return _answer(
        request,
        429 if wait else 403,
        "quota-exceeded",
        str(error),
        retryable=wait is not None,
        errors=[{"quota": error.quota, **use, "message": str(error)}],
        headers={"Retry-After": wait} if wait else None,
    )


async def _on_invalid_request(request: Request, error: RequestValidationError) -> Response:
    mistakes = error.errors()
    errors = explain(mistakes[:_MOST_EXPLAINED])
    detail = "; ".join(f"{entry['field']}: {entry['message']}" for entry in errors[:_MOST_IN_DETAIL])
    if len(mistakes) > len(errors):
        detail += f"; and {len(mistakes) - _MOST_IN_DETAIL} more: errors lists the first {len(errors)}"
    elif len(errors) > _MOST_IN_DETAIL:
        detail += f"; and {len(errors) - _MOST_IN_DETAIL} more, listed in errors"
    return _answer(request, 422, "invalid-request", detail, errors=errors)


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    code, detail = _HTTP_PROBLEMS.get(error.status_code, ("http-error", error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods_at(request)))
    return _answer(
        request, error.status_code, code, detail, retryable=error.status_code == 408, headers=headers
    )


def _methods_at(request: Request) -> set[str]:
    """What an address takes, by all of its routes: the first that matches it knows its own method alone."""
    routes = [route for route in request.app.router.routes if isinstance(route, Route)]
    matching = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in matching for method in route.methods or ()}


async def _on_client_gone(request: Request, _: ClientDisconnect) -> Response:
    gone = UploadBrokenOffError("the connection ended before the whole body had arrived: send it again")
    return await _on_service_error(request, gone)


async def _on_os_error(request: Request, error: OSError) -> Response:
    if error.errno in _BROKEN:
        broken = DiskBrokenError(
            f"the disk of the server's data folder fails ({error.strerror}): the operator has to look at it; "
            "then try again"
        )
        return await _on_service_error(request, broken)
    if error.errno not in (*NO_SPACE, errno.EFBIG):
        raise error
    full = DiskReserveError(
        f"the server cannot write ({error.strerror}): free some space in its data folder, then try again"
    )
    return await _on_service_error(request, full)


async def _on_anything_else(request: Request, _: Exception) -> Response:
    detail = "the server made a mistake; its log has more under this request_id: try again, then report it"
    return _answer(request, 500, "internal-error", detail, retryable=True)
