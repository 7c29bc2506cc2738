"""Request bodies, as routers take them: the schema's models, as far as they can be written down again."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel
from pydantic_core import PydanticSerializationError

from nextrapolate.schemas import JobRequest, SeriesCreate

_Model = TypeVar("_Model", bound=BaseModel)

_DEEPEST = 100
"""JSON with more levels than about 200 is read by no record, and records put some around a request."""


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


JobBody = Annotated[JobRequest, AfterValidator(_writable)]
SeriesBody = Annotated[SeriesCreate, AfterValidator(_writable)]
