"""The methods this service offers, as GET /methods and the pages show them."""

from nextrapolate.methods import METHODS
from nextrapolate.schemas import MethodInfo, MethodParameters


def _info(name: str, parameters: type[MethodParameters]) -> MethodInfo:
    """What the method says of itself; the first line of its docstring is the title."""
    schema = parameters.model_json_schema()
    return MethodInfo(
        name=name,
        title=schema["description"].partition("\n")[0].removesuffix("."),
        paper=parameters.source.label if parameters.source.url else None,
        minimum_checkpoints=parameters().minimum_checkpoints,
        parameters=schema,
    )


OFFERED = tuple(_info(name, parameters) for name, parameters in METHODS.items())
