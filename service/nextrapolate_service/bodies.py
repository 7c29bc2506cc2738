"""Request bodies, as routers take them: the schema's models, as far as they can be written down again."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticSerializationError

from nextrapolate.schemas import Announcement, JobRequest, JumpCreate, SeriesCreate

_Model = TypeVar("_Model", bound=BaseModel)

_MOST_MISTAKES = 1000
"""FastAPI copies each in the event loop, where the ninety thousand that fit into a body stop everything."""

_DEEPEST = 100
"""JSON with more levels than about 200 is read by no record, and records put some around a request."""


def _countable(body: object, validate: ValidatorFunctionWrapHandler) -> Any:
    """Say of a body with more mistakes than anybody corrects one by one how many they are, and no more."""
    try:
        return validate(body)
    except ValidationError as error:
        if error.error_count() <= _MOST_MISTAKES:
            raise
        raise ValueError(
            f"{error.error_count()} values in it are wrong, too many to list: compare it with the schemas in "
            "GET /openapi.json"
        ) from None


def _writable(body: _Model) -> _Model:
    """Refuse what could not be written down and read again."""
    if _is_deeper(dict(body), _DEEPEST):
        raise ValueError(f"this is nested too deeply: use at most {_DEEPEST} levels of lists and objects")
    try:
        body.model_dump_json()
    except PydanticSerializationError as error:  # JSON can spell half of a surrogate pair, UTF-8 cannot
        raise ValueError(f"this contains text that is not valid Unicode ({error}): fix the text") from None
    return body


def _is_deeper(value: object, levels: int) -> bool:
    """Level by level, since recursion would come to an end of its own."""
    level = [value]
    while levels and level:
        level = [inner for outer in level for inner in _inner(outer)]
        levels -= 1
    return any(isinstance(value, Mapping | list) for value in level)


def _inner(value: object) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else ()


JobBody = Annotated[JobRequest, AfterValidator(_writable), WrapValidator(_countable)]
SeriesBody = Annotated[SeriesCreate, AfterValidator(_writable), WrapValidator(_countable)]
AnnouncementBody = Annotated[Announcement, WrapValidator(_countable)]
JumpBody = Annotated[JumpCreate, WrapValidator(_countable)]
