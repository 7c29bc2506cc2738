"""The methods this service offers, as GET /methods and the pages show them."""

from nextrapolate.methods import METHODS
from nextrapolate.schemas import MethodInfo, MethodParameters


def _info(name: str, parameters: type[MethodParameters]) -> MethodInfo:
    """What the docstring of a method's parameters begins with: its title, and the paper in brackets."""
    schema = parameters.model_json_schema()
    summary = schema["description"].partition("\n")[0].removesuffix(".")
    title, _, paper = summary.removesuffix(")").partition(" (arXiv ")
    return MethodInfo(
        name=name,
        title=title,
        paper=f"arXiv:{paper}" if paper else None,
        minimum_checkpoints=parameters().minimum_checkpoints,
        parameters=schema,
    )


OFFERED = tuple(_info(name, parameters) for name, parameters in METHODS.items())
