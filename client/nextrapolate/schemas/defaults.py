"""What a request says beyond its defaults: it is sent so, and a repeated one is known by it."""

import hashlib
import json
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ValidationError

_KIND = ("name", "task")
"""Fields that tell which method or task the others belong to; they are always said."""


def beyond_defaults(asked: BaseModel) -> dict[str, Any]:
    """Give the fields that have to be said to ask for the same, and `name` and `task`; the rest are defaults.

    So one version need not know the fields of another that nobody uses. A field is tried without, rather than
    compared with its default, as that may depend on others: alpha's does on the preset.
    """
    said = dict(asked)
    for name, field in type(asked).model_fields.items():
        if name in _KIND or field.is_required():
            continue
        rest = {other: value for other, value in said.items() if other != name}
        with suppress(ValidationError):
            if type(asked).model_validate(rest) == asked:
                said = rest
    return {name: _said(value) for name, value in said.items()}


def digest_of(asked: BaseModel) -> str:
    """Give the sha256, in hex, of what a request says beyond its defaults: a repeated one has the same."""
    return hashlib.sha256(json.dumps(beyond_defaults(asked), sort_keys=True).encode()).hexdigest()


def _said(value: Any) -> Any:
    match value:
        case BaseModel():
            return beyond_defaults(value)
        case list() | tuple():
            return [_said(each) for each in value]
    return value
