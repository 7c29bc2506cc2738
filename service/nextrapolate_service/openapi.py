"""What /openapi.json says beyond the routes: tags, events, and that every error is a problem."""

from collections.abc import Callable
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from nextrapolate.schemas import JobEvent, Problem, WebhookMessage
from nextrapolate_service import generators
from nextrapolate_service.problems import PROBLEM_JSON

DESCRIPTION = """
RLVR is slow because every step rolls out many answers. Its weights move along a trajectory that can be
predicted: post the LoRA checkpoints of a run, get back an extrapolated adapter, and train on from there.

1. `POST /series`, then `PUT` the two files of each checkpoint (or give them as URIs in `checkpoints`).
2. `POST /jobs` answers 202 at once; `Prefer: wait=30` waits for the result, and
   `GET /jobs/{job_id}/events` reports its progress.
3. `GET /jobs/{job_id}/adapter/adapter_model.safetensors` and `.../adapter_config.json` load with PEFT and
   vLLM as they are.

Every error is `application/problem+json` (RFC 9457) with a `code`, whether it is `retryable`, who has to
fix it (`blame`), and a `detail` that says what to do. One that is `retryable` may pass: try the same again,
after Retry-After if there is one, else after a second, then longer. Every answer has an X-Request-Id.
"""

TAGS = [
    {"name": "series", "description": "Runs, and those of their checkpoints that have arrived."},
    {"name": "jobs", "description": "Extrapolations, backtests and inspections: submit, follow, cancel."},
    {
        "name": "results",
        "description": "The report of a job that succeeded, and the adapter of an extrapolation.",
    },
    {"name": "methods", "description": "What this server can compute."},
    {"name": "health", "description": "For health probes; no key needed."},
    {"name": "metrics", "description": "For Prometheus, with a key of scope `metrics`."},
]

_PROBLEMS = {
    400: "The request cannot be read.",
    401: "No key, or a wrong one.",
    403: "The key does not allow this, or a quota of its tenant is used up.",
    404: "There is no such thing, or it belongs to another tenant.",
    408: "The JSON body arrives too slowly; send it again.",
    409: "It conflicts with what is stored, or comes before something that it needs: then it is `retryable`.",
    413: "The body is too large; the limit is 1 MiB for JSON, and 64 KiB for adapter_config.json.",
    416: "These byte ranges cannot be served.",
    422: "Well-formed, but it cannot be used; `errors` has one entry for each field.",
    424: "The Hub or the bucket does not answer; try again after Retry-After.",
    429: "Too many requests with this key, or too much in progress; try again after Retry-After.",
    503: "The store is unavailable: try again after Retry-After. Where it is not `retryable`, the operator "
    "has to act.",
    507: "The server's disk is nearly full; try again after Retry-After.",
}


def header(description: str, schema_type: str = "string") -> dict[str, Any]:
    """One header of an answer."""
    return {"description": description, "schema": {"type": schema_type}}


_RETRY_AFTER = {"Retry-After": header("seconds to wait", "integer")}
_PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": header("how to authenticate: `Bearer`")},
    **dict.fromkeys((409, 424, 429, 503, 507), _RETRY_AFTER),
    416: {"Content-Range": header("`bytes */size`")},
}

_REFERENCE = "#/components/schemas/{model}"
_AS_JSON = {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Problem")}}}

Responses = dict[int | str, dict[str, Any]]


def problem_responses(*statuses: int) -> Responses:
    """The problems an endpoint may answer with, and those of every endpoint that wants a key."""
    return {
        status: {
            "model": Problem,
            "description": _PROBLEMS[status],
            "headers": _PROBLEM_HEADERS.get(status, {}),
        }
        for status in sorted({401, 403, 422, 429, 503, *statuses})
    }


def operation_id(route: APIRoute) -> str:
    """Operations are named by their functions."""
    return route.name


webhooks = APIRouter(generate_unique_id_function=operation_id)


@webhooks.post(
    "job-ended",
    status_code=204,
    responses={
        204: {"description": "Any 2xx: the message was received."},
        410: {"description": "Nobody listens any more; it is not sent again."},
        "default": {
            "description": "Any other answer, or none within 15 s: it is sent again, in 8 attempts over "
            "most of a day."
        },
    },
    summary="Receive the end of a job",
)
def job_ended(message: WebhookMessage) -> None:
    """What the service posts to a job's `webhook.url`, signed as Standard Webhooks are."""


def describe(app: FastAPI) -> None:
    """Make /openapi.json say what FastAPI cannot: the media type of problems, and what an event holds."""
    generate: Callable[[], dict[str, Any]] = app.openapi

    @cache  # FastAPI gives the same document again and again
    def completed() -> dict[str, Any]:
        document = generate()
        event = JobEvent.model_json_schema(mode="serialization", ref_template=_REFERENCE)
        schemas = document["components"]["schemas"]
        document["components"]["schemas"] = event.pop("$defs") | schemas | {"JobEvent": event}
        for operations in (*document["paths"].values(), *document["webhooks"].values()):
            for operation in operations.values():
                operation.setdefault("security", [])
                for response in operation["responses"].values():
                    if response.get("content") == _AS_JSON:
                        response["content"] = {PROBLEM_JSON: _AS_JSON["application/json"]}
        generators.fit(document)
        return document

    app.openapi = completed  # type: ignore[method-assign]  # the way FastAPI documents
