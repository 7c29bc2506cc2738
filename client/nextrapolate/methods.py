"""From a method's name and parameters to the method, or to a list of what there is."""

from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from nextrapolate.errors import ParameterError
from nextrapolate.invalid_requests import field_path, plain
from nextrapolate.schemas import Method, MethodParameters

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
        raise ParameterError(f"there is no method {name!r}; known are {', '.join(sorted(METHODS))}")
    if "name" in parameters:
        raise ParameterError(_unknown(name, ["name"]))
    try:
        return _METHOD.validate_python({**given, "name": name})
    except ValidationError as error:
        raise ParameterError(_short(name, error)) from None


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
    return f"{name} takes no {', '.join(parameters)}; known are {known}"
