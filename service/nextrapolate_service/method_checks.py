"""Whether checkpoints will do for a task and its methods: what is known before any weights are read."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median_high

from nextrapolate.schemas import (
    BacktestCreate,
    InspectCreate,
    JobCreate,
    JobRequest,
    Method,
)
from nextrapolate_service.errors import MissingCheckpointError, ScoreCountError, TooFewCheckpointsError

_INSPECTED = 3
"""Checkpoints of an inspection: a line through fewer says nothing."""


def check_task(request: JobRequest, steps: Sequence[int], *, starts_at_base: bool) -> None:
    """Refuse a task for which the checkpoints of these steps will not do.

    Args:
        request: with its task.
        steps: of the checkpoints, ascending.
        starts_at_base: False where the first checkpoint's configuration says that the run did not.

    Raises:
        TooFewCheckpointsError, MissingCheckpointError: more are needed, or others.
        ScoreCountError: not one reward or score for each checkpoint.
    """
    field = "series" if request.series else "checkpoints"
    match request:
        case JobCreate(method=method):
            check_method(method, steps, field, starts_at_base=starts_at_base)
        case BacktestCreate(at=at, until=target):
            for step, name in ((at, "at"), (target, "at + horizon_steps")):
                if step not in steps:
                    raise MissingCheckpointError(
                        f"there is no checkpoint at step {step} ({name}): a backtest needs both the "
                        "checkpoint it starts from and the one it predicts; there are "
                        f"{', '.join(map(str, steps)) or 'none'}",
                        field=field,
                    )
            if at == steps[0] and _first_is_origin(steps, starts_at_base=starts_at_base):
                raise TooFewCheckpointsError(
                    f"a backtest at step {at} shows the methods a single checkpoint, in which nothing has "
                    "moved yet: choose a later step",
                    field="at",
                )
        case InspectCreate():
            if len(steps) < _INSPECTED:
                raise TooFewCheckpointsError(
                    f"an inspection needs at least {_INSPECTED} checkpoints, but there are {len(steps)}: "
                    "collect more",
                    field=field,
                )


def check_method(method: Method, steps: Sequence[int], field: str, *, starts_at_base: bool) -> None:
    """Refuse a method for which the checkpoints of these steps will not do.

    Args:
        method: with the parameters it was asked for with.
        steps: of the checkpoints, ascending.
        field: of the request, where the checkpoints come from.
        starts_at_base: as for `check_task`.

    Raises:
        TooFewCheckpointsError: it says how many would do.
        ScoreCountError: not one reward or score for each checkpoint.
        MissingCheckpointError: a step that the method was given has no checkpoint.
    """
    needed = _needed_checkpoints(method, steps, starts_at_base=starts_at_base)
    if len(steps) < needed:
        asked, instead = "", ""
        if method.learns_from_pairs:
            asked, instead = " at this spacing and horizon", ", or shorten horizon_steps"
        raise TooFewCheckpointsError(
            f"{method.name} needs at least {needed} checkpoints{asked}, but there are {len(steps)}: "
            f"collect more{instead}",
            field=field,
        )
    for name, numbers in method.per_checkpoint.items():
        if len(numbers) != len(steps):
            raise ScoreCountError(
                f"there are {len(numbers)} {name}, but {len(steps)} checkpoints: give one for each "
                "checkpoint, in the order of their steps",
                field=f"method.{name}",
            )
    known = sorted({0, *steps}) if starts_at_base else steps
    for name, (step, before_last) in method.named_steps.items():
        choice = known[:-1] if before_last else known
        if step not in choice:
            raise MissingCheckpointError(
                f"{name} cannot be {step}: choose one of {', '.join(map(str, choice))}",
                field=f"method.{name}",
            )


def _needed_checkpoints(method: Method, steps: Sequence[int], *, starts_at_base: bool) -> int:
    """How many checkpoints there have to be, if those there are went on at their median spacing."""
    origin = _first_is_origin(steps, starts_at_base=starts_at_base)
    told = steps[1:] if origin and not method.learns_from_base else steps
    needed = method.minimum_checkpoints
    if method.learns_from_pairs and len(told) >= 2:
        missing_steps = max(0, told[0] + method.horizon_steps - told[-1])
        spacing = median_high(after - before for before, after in pairwise(told))
        needed = max(needed, len(told) + math.ceil(missing_steps / spacing))
    return needed + len(steps) - len(told)


def _first_is_origin(steps: Sequence[int], *, starts_at_base: bool) -> bool:
    """True where training is measured from the first checkpoint, and not from a base model before it."""
    return not starts_at_base or 0 in steps
