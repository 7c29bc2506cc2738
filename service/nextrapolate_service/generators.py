"""What generators of clients need of /openapi.json: they know less of JSON Schema than its readers do."""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_TELLS_APART = ("name", "task")
"""Constants that tell the shapes of a union from one another: methods, and tasks with their reports."""

_MAY_LEAVE_OUT = "JobCreate"
"""The one shape that a body without its constant has: an extrapolation."""

_DEFAULTS_THAT_MISLEAD = (("NextMethod", "alpha"),)
"""Under preset=paper it is another one, and generated constructors send the one that they are told."""

_FORMATS = {"integer": "int64", "number": "double"}
"""Without one generated code holds them in 32 bits, and a file of 3 GiB has more bytes than these count."""


def fit(document: dict[str, Any]) -> None:
    """Complete a document in its place; what it allows stays what the service takes."""
    schemas: dict[str, Schema] = document["components"]["schemas"]
    for name, schema in schemas.items():
        if name != _MAY_LEAVE_OUT:
            _ask_for_what_tells_apart(schema)
    for model, field in _DEFAULTS_THAT_MISLEAD:
        del schemas[model]["properties"][field]["default"]
    for schema in _all_schemas(document):
        for type_, format_ in _FORMATS.items():
            if schema.get("type") == type_:
                schema.setdefault("format", format_)
        if "default" in schema and _is_of_several_types(schema):
            del schema["default"]  # generated code has no constant that may be a number or a word
        for part in schema.get("anyOf", ()):
            if "const" in part:  # openapi-python-client would take no other value of the union
                part["enum"] = [part.pop("const")]
        if (items := schema.get("prefixItems")) and items == items[:1] * len(items):
            del schema["prefixItems"]
            schema["items"] = items[0]
    body = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body["title"] = "JobRequest"
    body["discriminator"] = {"propertyName": "task", "mapping": dict(_by_task(body["oneOf"], schemas))}


def _ask_for_what_tells_apart(schema: Schema) -> None:
    for field in _TELLS_APART:
        told = schema.get("properties", {}).get(field, {})
        if "const" in told:
            told.pop("default", None)
            schema["required"] = list(dict.fromkeys([field, *schema.get("required", [])]))


def _is_of_several_types(schema: Schema) -> bool:
    """Whether a value may be of more types than one, and null."""
    return len({part.get("type") for part in schema.get("anyOf", ())} - {"null"}) > 1


def _by_task(shapes: list[Schema], schemas: dict[str, Schema]) -> Iterator[tuple[str, str]]:
    for shape in shapes:
        model = shape["$ref"].rpartition("/")[2]
        yield schemas[model]["properties"]["task"]["const"], shape["$ref"]


def _all_schemas(part: Any) -> Iterator[Schema]:
    """Give every object that may be a schema, those within others too."""
    if isinstance(part, dict):
        yield part
        for within in part.values():
            yield from _all_schemas(within)
    elif isinstance(part, list):
        for within in part:
            yield from _all_schemas(within)
