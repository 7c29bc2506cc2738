"""Request bodies, as routers take them: the schema's models, as far as they can be written down again."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel
from pydantic_core import PydanticSerializationError

from nextrapolate.schemas import JobRequest, SeriesCreate

_Model = TypeVar("_Model", bound=BaseModel)


def _writable(body: _Model) -> _Model:
    """Refuse text that is no Unicode: JSON can spell half of a surrogate pair, UTF-8 cannot."""
    try:
        body.model_dump_json()
    except PydanticSerializationError as error:
        raise ValueError(f"this holds text that is no Unicode ({error}): mend the text") from None
    return body


JobBody = Annotated[JobRequest, AfterValidator(_writable)]
SeriesBody = Annotated[SeriesCreate, AfterValidator(_writable)]
