"""From pydantic's errors to a list that says, field by field, what is wrong and what would be right."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from nextrapolate.invalid_requests import field_path, plain_words
from nextrapolate.methods import METHODS
from nextrapolate.schemas import Task

TASKS: list[str] = list(get_args(Task))

_NO_OBJECT = ("model_attributes_type", "missing", "union_tag_not_found")
"""What pydantic finds in a body that is no JSON object, or did not come as one."""


def explain(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give one entry for each error: `field`, `message`, and `known` where a name is unknown.

    The values that came are left out: they may be secret, huge, or not JSON at all.
    """
    return [_explain(error["loc"], error) for error in errors]


def _explain(loc: tuple[int | str, ...], error: Mapping[str, Any]) -> dict[str, Any]:
    where, *path = loc
    if path and path[0] in TASKS:
        del path[0]  # pydantic's tags of union members, which the caller never wrote
    in_a_method = path[:1] in (["method"], ["methods"])
    method = next((part for part in path if in_a_method and part in METHODS), None)
    if method:
        path.remove(method)
    field = (field_path(path) if method else ".".join(map(str, path))) or str(where)
    kind = error["type"]
    if field == "body" and kind in _NO_OBJECT:
        return _entry("body", "send a JSON object, with Content-Type: application/json")
    if kind == "union_tag_invalid" and not path:
        return _entry("task", f"there is no task {error['ctx']['tag']!r}: use {_either(TASKS)}", TASKS)
    if kind == "union_tag_invalid":
        known = list(METHODS)
        return _entry(
            f"{field}.name", f"there is no method {error['ctx']['tag']!r}: use {_either(known)}", known
        )
    if kind == "union_tag_not_found":
        known = list(METHODS)
        return _entry(f"{field}.name", f"the method has no name: use {_either(known)}", known)
    if kind == "extra_forbidden" and method:
        known = sorted(METHODS[str(method)].model_fields.keys() - {"name"})
        return _entry(field, f"{method} has no such parameter: its parameters are {', '.join(known)}", known)
    if kind == "extra_forbidden":
        return _entry(field, "there is no such field: leave it out, or fix its name")
    if kind == "json_invalid":
        return _entry("body", f"this is not JSON ({error['ctx']['error']} at character {path[0]})")
    if kind == "too_short":
        least, came = error["ctx"]["min_length"], error["ctx"]["actual_length"]
        return _entry(field, f"at least {least} are needed, got {came}")
    return _entry(field, plain_words(error["msg"]))


def _entry(field: str, message: str, known: list[str] | None = None) -> dict[str, Any]:
    return {"field": field, "message": message} | ({"known": known} if known else {})


def _either(names: list[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1]))
