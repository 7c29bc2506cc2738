"""What the service says where it cannot do what was asked."""

from typing import Any, Literal

from pydantic import Field

from nextrapolate.schemas.common import Response


class Problem(Response):
    """RFC 9457 problem+json: what went wrong, whose it is, and what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    blame: Literal["user", "server"]
    request_id: str
    errors: list[dict[str, Any]] = Field(
        default_factory=list, description="one entry for each field that is wrong"
    )


class Readiness(Response):
    """Answer of GET /readyz."""

    ready: bool
    checks: dict[str, str]
