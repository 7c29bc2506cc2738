"""Runs that have jumped: what the trainer's plugin notes in each of a run's checkpoints.

In a run's folders jumps cannot be told from training: the checkpoint of a jump's step holds what was swapped
in. The run's series has both apart.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from nextrapolate.errors import CheckpointError
from nextrapolate.folders import LocalCheckpoint
from nextrapolate.schemas import ADAPTER_MODEL, JumpInfo

RUN_STATE = "nextrapolate.json"
_LEVELS = 3  # the adapter's folder, and in verl's layout those around it


class RunNote(BaseModel):
    """The run as it was after training step `step`, which is also its place in the schedule."""

    model_config = ConfigDict(frozen=True)

    step: int
    series: str | None
    """Where its checkpoints are; None where none has arrived yet."""
    from_base: bool = True
    """False where training began with an adapter that had been trained before, or nobody knows with what, and
    where the run had jumped when its series was begun."""
    jumps: tuple[JumpInfo, ...] = ()
    """Those that it has made, whether its series knows of them yet or not."""
    adapter: str | None = None
    """Fingerprint of the run's own adapter as it was saved; None where nobody has to recognise it."""


class JumpedError(CheckpointError):
    """The run has jumped: whatever comes into its folders, they alone will not tell its trajectory again."""


def check_has_not_jumped(checkpoints: Sequence[LocalCheckpoint]) -> None:
    """Refuse a run's folders where the last of these checkpoints has jumps behind it.

    Raises:
        JumpedError: it has; says where the run is as it was.
        CheckpointError: nobody can tell, since its note cannot be read.
    """
    if not checkpoints:
        return
    last = checkpoints[-1]
    path, note = _note(last.folder)
    if note is None or not note.jumps:
        return
    steps = ", ".join(str(jump.step) for jump in note.jumps)
    series = f"its series, {note.series}," if note.series else "its series"
    older = path.stat().st_mtime < last.files[ADAPTER_MODEL].stat().st_mtime
    left_over = (
        f" But {path} is older than the adapter there: if another run left it, remove it." if older else ""
    )
    raise JumpedError(
        f"this run has jumped after step {steps}, and its folders alone do not show what was jump and what "
        f"was training; give {series} instead, which keeps the two apart, or only checkpoints before the "
        f"first jump (until).{left_over}"
    )


def _note(folder: Path) -> tuple[Path, RunNote | None]:
    """What the plugin has noted, and where; None of a run without it or of another's file by that name."""
    for place in (folder, *folder.absolute().parents[: _LEVELS - 1]):
        path = place / RUN_STATE
        try:
            if (note := _read(path)) is not None:
                return path, note
        except (FileNotFoundError, NotADirectoryError):
            continue
    return folder, None


def _read(path: Path) -> RunNote | None:
    """Read a note; None where the file is another program's.

    A note that is damaged is not taken for another's: its run would be taken for one that has not jumped.
    """
    try:
        content = json.loads(path.read_bytes())
        if not (isinstance(content, dict) and {"step", "series"} <= content.keys()):
            return None
        return RunNote.model_validate(content)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError) as error:
        reason = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
        raise CheckpointError(
            f"{path} cannot be read ({reason}), so that nobody can tell whether this run has jumped: give "
            "its series instead (`nextrapolate series list`), or only earlier checkpoints (until); if it has "
            "not jumped, or the file is another program's, move that away"
        ) from error
