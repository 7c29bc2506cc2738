"""Whether checkpoints will do for a method: what their steps alone tell, before any is read."""

from collections.abc import Sequence

from nextrapolate.schemas import Method, WeightExtrapolationMethod
from nextrapolate_service.errors import MissingCheckpointError, ScoreCountError, TooFewCheckpointsError
from nextrapolate_service.methods import METHODS


def check_method(method: Method, steps: Sequence[int], field: str) -> None:
    """Refuse a method for which the checkpoints of these steps will not do.

    Args:
        method: with the parameters it was asked for with.
        steps: of the checkpoints, ascending.
        field: of the request, where the checkpoints come from.

    Raises:
        TooFewCheckpointsError: it says how many would do.
        ScoreCountError: not one reward or score for each checkpoint.
        MissingCheckpointError: a step that the method was given has no checkpoint.
    """
    entry = METHODS[method.name]
    needed = entry.needed_checkpoints(method, steps)
    if len(steps) < needed:
        raise TooFewCheckpointsError(
            f"{entry.name} needs at least {needed} checkpoints at this spacing and horizon, there are "
            f"{len(steps)}: collect more of them, or shorten horizon_steps",
            field=field,
        )
    for name, numbers in method.per_checkpoint.items():
        if len(numbers) != len(steps):
            raise ScoreCountError(
                f"there are {len(numbers)} {name}, and {len(steps)} checkpoints: give one for each of them, "
                "in the order of their steps",
                field=f"method.{name}",
            )
    if isinstance(method, WeightExtrapolationMethod):
        _check_ends(method, steps)


def _check_ends(method: WeightExtrapolationMethod, steps: Sequence[int]) -> None:
    known = sorted({0, *steps})
    for name, step, choice in (
        ("from_step", method.from_step, known[:-1]),
        ("to_step", method.to_step, known),
    ):
        if step is not None and step not in choice:
            raise MissingCheckpointError(
                f"{name} cannot be {step}: choose it among {', '.join(map(str, choice))}",
                field=f"method.{name}",
            )
