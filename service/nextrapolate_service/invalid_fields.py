"""From pydantic's errors to a list that says, field by field, what is wrong and what would be right."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from nextrapolate.invalid_requests import field_path, plain
from nextrapolate.methods import METHODS
from nextrapolate.schemas import BacktestCreate, InspectCreate, JobCreate

_REQUESTS: Mapping[str, type[BaseModel]] = {
    "extrapolate": JobCreate,
    "backtest": BacktestCreate,
    "inspect": InspectCreate,
}
TASKS = list(_REQUESTS)
_OF_METHODS = {name for method in METHODS.values() for name in method.model_fields} - {"name"}

_NO_OBJECT = ("model_attributes_type", "missing", "union_tag_not_found")
"""What pydantic finds in a body that is no JSON object, or did not come as one."""

_SPELLINGS: Mapping[str, str] = {
    "webhook.url": "write it as https://host/path, without spaces, #, and names of users",
    "x-hub-token": "send the token alone: at most 512 visible ASCII characters, without spaces",
    "files": "write a sha256 as 64 hexadecimal digits, in small letters",
}
"""What pydantic says by a regular expression, by the field or by what it is in."""


def explain(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give one entry for each error: `field`, `message`, and `known` where a name is unknown.

    The values that came are left out: they may be secret, huge, or not JSON at all.
    """
    return [_explain(error["loc"], error) for error in errors]


def _explain(loc: tuple[int | str, ...], error: Mapping[str, Any]) -> dict[str, Any]:
    where, *path = loc
    task = str(path.pop(0)) if path and path[0] in TASKS else None  # a tag, which the caller never wrote
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
        return _unknown(field, task if len(path) == 1 else None)
    if kind == "json_invalid":
        return _entry("body", f"this is not JSON ({error['ctx']['error']} at character {path[0]})")
    if kind == "too_short":
        least, came = error["ctx"]["min_length"], error["ctx"]["actual_length"]
        return _entry(field, f"at least {least} are needed, got {came}")
    if kind in ("model_attributes_type", "dict_type"):
        named = ', with the name of a method, such as {"name": "auto"}' if in_a_method else ""
        return _entry(field, f"write it as a JSON object{named}")
    if kind == "string_pattern_mismatch" and (spelling := _spelling(field)):
        return _entry(field, spelling)
    return _entry(field, plain(error))


def _unknown(field: str, task: str | None) -> dict[str, Any]:
    """Explain a field that there is not; `task` is that of the request, where the field is one of its own."""
    if task == "extrapolate" and field in _OF_METHODS:
        return _entry(field, "this is a parameter of the method: write it into `method`")
    known = sorted(_REQUESTS[task].model_fields) if task else []
    return _entry(field, "there is no such field: leave it out, or fix its name", known)


def _spelling(field: str) -> str | None:
    return _SPELLINGS.get(field) or _SPELLINGS.get(field.partition(".")[0])


def _entry(field: str, message: str, known: list[str] | None = None) -> dict[str, Any]:
    return {"field": field, "message": message} | ({"known": known} if known else {})


def _either(names: list[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1]))
