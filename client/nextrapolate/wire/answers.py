"""From an HTTP answer to a value, or to the error that says what is wrong."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from nextrapolate.errors import (
    APIError,
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    ServerError,
)
from nextrapolate.invalid_requests import lines
from nextrapolate.schemas import Problem

ModelT = TypeVar("ModelT", bound=BaseModel)

_PASSING = {408, 429, 502, 503, 504}  # where an answer without a problem document is worth another try
_BY_STATUS: dict[int, type[APIError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotFoundError,
    408: APIError,
    409: ConflictError,
    424: ServerError,
    429: APIError,
}


def reader(model: type[ModelT]) -> Callable[[httpx.Response], ModelT]:
    """Make a function that reads an answer's JSON body as `model`."""

    def read(response: httpx.Response) -> ModelT:
        try:
            return model.model_validate_json(response.content, extra="ignore")  # of a later server
        except ValidationError as error:
            raise ServerError(_unread_problem(response, error)) from error

    return read


def refusal(response: httpx.Response) -> APIError | None:
    """Make the error that an answer stands for, its body read already; None where it is a success."""
    if response.is_success:
        return None
    try:
        problem = Problem.model_validate_json(response.content, extra="ignore")
    except ValidationError:
        problem = _foreign_problem(response)
    if problem.code == "quota-exceeded":
        return QuotaExceededError(problem, _retry_after(response))
    default = ServerError if response.is_server_error else InvalidRequestError
    kind = _BY_STATUS.get(response.status_code, default)
    return kind(problem, _retry_after(response))


def _unread_problem(response: httpx.Response, error: ValidationError) -> Problem:
    """Make a problem of an answer that lacks a field, or has one of another kind."""
    if not error.errors()[0]["loc"]:  # it is not even a JSON object
        return _foreign_problem(response)
    return _problem(
        response,
        f"which nextrapolate {version('nextrapolate')}, the version of this client, cannot read "
        f"({lines(error)[0]}): did another version write it, or is another server at this address? Install "
        "the server's version here",
    )


def _foreign_problem(response: httpx.Response) -> Problem:
    """Make a problem of an answer that is not the service's own, such as a proxy's page."""
    return _problem(
        response,
        "which is not how nextrapolate answers: is there a proxy in between, or another server at this "
        "address?",
    )


def _problem(response: httpx.Response, remark: str) -> Problem:
    """Make a problem of an answer which is none, and of what there is to say of it."""
    status, address = response.status_code, response.url.copy_with(query=None)
    return Problem(
        title=response.reason_phrase,
        status=status,
        detail=f"{address} answered {status} {response.reason_phrase}, {remark}",
        code=f"http-{status}",
        retryable=status in _PASSING,
        blame="user" if response.is_client_error else "server",
        request_id=response.headers.get("X-Request-ID", ""),
    )


def _retry_after(response: httpx.Response) -> float | None:
    """Read how many seconds the answer asks to wait: a number, or until a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
