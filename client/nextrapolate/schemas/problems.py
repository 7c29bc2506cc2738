"""What the service answers when it cannot do what was asked."""

from typing import Any, Literal

from pydantic import Field, JsonValue

from nextrapolate.schemas.common import Response

_TEXT: dict[str, JsonValue] = {"type": "string"}
_NUMBER: dict[str, JsonValue] = {"type": "integer"}
_ENTRY: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "field": _TEXT,
        "message": _TEXT,
        "known": {"type": "array", "items": _TEXT, "description": "the values that are allowed there"},
        "quota": _TEXT,
        "used": _NUMBER,
        "limit": _NUMBER,
    },
    "required": ["message"],
}


class Problem(Response):
    """RFC 9457 problem+json: what went wrong, who has to fix it, and what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    advice: str | None = Field(
        default=None,
        description="the end of `detail`, where that names a request which helps: a program that has another "
        "way to make it may say that instead",
    )
    code: str
    retryable: bool
    blame: Literal["user", "server"]
    request_id: str
    errors: list[dict[str, Any]] = Field(
        default_factory=list,
        description="one entry for each field that is wrong, or for the quota that is used up",
        json_schema_extra={"items": _ENTRY},
    )

    @property
    def fault(self) -> str:
        """What went wrong, without the request that helps."""
        return self.detail.removesuffix(f": {self.advice}") if self.advice else self.detail


class Readiness(Response):
    """Answer of GET /readyz."""

    ready: bool
    checks: dict[str, str]
