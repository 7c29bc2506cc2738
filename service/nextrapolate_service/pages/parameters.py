"""A method's parameters as the fields of a form, from their JSON schema; nothing here knows a method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel

from nextrapolate_service.pages.forms import Fields


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
        name: as the form sends it.
        label: for people.
        kind: how it is entered.
        value: what it holds at first.
        default: what it means left empty.
        help: what it means.
        choices: of a select.
        bounds: attributes of a number: min, max, step.
    """

    name: str
    label: str
    kind: Literal["number", "select", "checkbox", "text"]
    value: str
    default: str
    help: str
    choices: tuple[str, ...]
    bounds: Mapping[str, Any]


def fields_of(model: type[BaseModel], values: Mapping[str, Any], prefix: str) -> list[Field]:
    """Make a field of each parameter; those without a value are left empty where they can be.

    What is empty is not sent: of some defaults, other parameters decide what they are.
    """
    return [
        _field(name, schema, values.get(name), prefix)
        for name, schema in _properties(model).items()
        if "const" not in schema
    ]


def entered(model: type[BaseModel], form: Fields, prefix: str) -> dict[str, Any]:
    """Read the parameters from a form, as text; what was left empty is left out, and so the default."""
    found: dict[str, Any] = {}
    for field in fields_of(model, {}, prefix):
        if field.kind == "checkbox":
            found[field.label] = field.name in form
        elif text := form.get(field.name, [""])[0].strip():
            found[field.label] = text
    return found


@cache
def _properties(model: type[BaseModel]) -> Mapping[str, Mapping[str, Any]]:
    properties: Mapping[str, Mapping[str, Any]] = model.model_json_schema()["properties"]
    return properties


def _field(name: str, schema: Mapping[str, Any], value: Any, prefix: str) -> Field:
    variants = [variant for variant in schema.get("anyOf", [schema]) if variant.get("type") != "null"]
    kind, choices, bounds = _input(variants)
    default = _text(schema.get("default"))
    holds_something = kind in ("select", "checkbox")
    return Field(
        name=f"{prefix}{name}",
        label=name,
        kind=kind,
        value=_text(value) or (default if holds_something else ""),
        default=default,
        help=schema.get("description", ""),
        choices=choices,
        bounds=bounds,
    )


def _input(
    variants: Sequence[Mapping[str, Any]],
) -> tuple[Literal["number", "select", "checkbox", "text"], tuple[str, ...], dict[str, Any]]:
    if len(variants) > 1:
        return "text", (), {}
    (only,) = variants
    if "enum" in only:
        return "select", tuple(map(str, only["enum"])), {}
    match only.get("type"):
        case "boolean":
            return "checkbox", (), {}
        case "integer" | "number" as number:
            bounds = {"step": 1 if number == "integer" else "any"}
            bounds |= {
                short: only[name] for short, name in (("min", "minimum"), ("max", "maximum")) if name in only
            }
            return "number", (), bounds
    return "text", (), {}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
