"""From a method's name and parameters to the method, or to a list of what there is; and back to text."""

import json
import shlex
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from nextrapolate.errors import ParameterError
from nextrapolate.invalid_requests import field_path, plain
from nextrapolate.schemas import AnsweredMethod, Method, MethodParameters, beyond_defaults

_METHOD: TypeAdapter[Method] = TypeAdapter(Method)
METHODS: dict[str, type[MethodParameters]] = {
    model.model_fields["name"].default: model for model in get_args(get_args(Method)[0])
}
"""The parameters of every method, by its name."""


def default_methods() -> list[Method]:
    """Every method, with its defaults."""
    return [_METHOD.validate_python({"name": name}) for name in METHODS]


def make_method(method: str | Method, /, **parameters: Any) -> Method:
    """Make the method of that name with these parameters, or `method` with these changed.

    Values may be text, as a command line has them.

    Raises:
        ParameterError: the method or one of the parameters is not known, or a value is out of its range.
    """
    if isinstance(method, str):
        name, given = method, parameters
    else:
        name, given = method.name, method.model_dump(exclude_unset=True) | parameters
    if name not in METHODS:
        raise ParameterError(f"there is no method {name!r}; the methods are {', '.join(sorted(METHODS))}")
    if "name" in parameters:
        raise ParameterError(_unknown(name, ["name"]))
    try:
        return _METHOD.validate_python({**given, "name": name})
    except ValidationError as error:
        raise ParameterError(_short(name, error)) from None


def label(method: AnsweredMethod) -> str:
    """Name a method so that it is told from the same with other parameters: `next preset=paper`.

    The horizon is left out, since methods that stand beside each other have the same.
    """
    return " ".join([method.name, *(f"{name}={_in_short(value)}" for name, value in _own(method).items())])


def options(method: AnsweredMethod) -> str:
    """Write a method as options of `nextrapolate extrapolate`, for a shell; the horizon is left out."""
    said = _own(method)
    parts = ["--method", method.name]
    if "alpha" in said:
        parts += ["--alpha", _as_text(said.pop("alpha"))]
    for name, value in said.items():
        parts += ["--set", f"{name}={_as_text(value)}"]
    return shlex.join(parts)


def _own(method: AnsweredMethod) -> dict[str, Any]:
    said = beyond_defaults(method)
    return {name: value for name, value in said.items() if name not in ("name", "horizon_steps")}


def _in_short(value: Any) -> str:
    """Write a value for people; of what there is for each checkpoint, how many."""
    return f"({len(value)})" if isinstance(value, list | tuple) else _as_text(value)


def _as_text(value: Any) -> str:
    """Write a value as `make_method` reads it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_as_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def _short(name: str, error: ValidationError) -> str:
    """Say what is wrong, a line each; and the known parameters where one is not known."""
    lines, unknown = [], []
    for problem in error.errors(include_url=False):
        parameter = field_path(problem["loc"][1:])  # the first part is the method's name
        if problem["type"] == "extra_forbidden":
            unknown.append(parameter)
        else:
            lines.append(": ".join(filter(None, (name, parameter, plain(problem)))))
    if unknown:
        lines.append(_unknown(name, unknown))
    return "\n".join(lines)


def _unknown(name: str, parameters: list[str]) -> str:
    known = ", ".join(field for field in METHODS[name].model_fields if field != "name")
    return f"{name} does not take {', '.join(parameters)}; its parameters are {known}"
