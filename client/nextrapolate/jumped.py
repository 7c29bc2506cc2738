"""Runs that have jumped: what the trainer's plugin notes in each checkpoint, as far as it concerns a reader.

In a run's folders jumps cannot be told from training: the checkpoint of a jump's step holds what was swapped
in. The run's series has both apart.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from nextrapolate.errors import CheckpointError
from nextrapolate.folders import LocalCheckpoint

RUN_STATE = "nextrapolate.json"
_LEVELS = 3  # the adapter's folder, and in verl's layout those around it


class _Jump(BaseModel):
    step: int


class _RunState(BaseModel):
    series: str | None
    jumps: tuple[_Jump, ...] = ()


def check_has_not_jumped(checkpoints: Sequence[LocalCheckpoint]) -> None:
    """Refuse a run's folders where the last of these checkpoints has jumps behind it.

    Raises:
        CheckpointError: it has; says where the run is as it was.
    """
    state = _state(checkpoints[-1].folder) if checkpoints else None
    if state is None or not state.jumps:
        return
    steps = ", ".join(str(jump.step) for jump in state.jumps)
    series = f"its series, {state.series}," if state.series else "its series"
    raise CheckpointError(
        f"this run has jumped after {steps}, and in its folders a jump cannot be told from training; give "
        f"{series} instead, which has both apart, or only checkpoints before the first jump (until)"
    )


def _state(folder: Path) -> _RunState | None:
    """What the plugin has noted, and None of a run without it or of another's file by that name."""
    for place in (folder, *folder.absolute().parents[: _LEVELS - 1]):
        try:
            return _RunState.model_validate_json((place / RUN_STATE).read_bytes())
        except (OSError, ValidationError):
            continue
    return None
