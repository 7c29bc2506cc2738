"""What a caller may name as a trajectory, told apart once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nextrapolate.errors import CheckpointError
from nextrapolate.folders import LocalCheckpoint, find_checkpoints, read_checkpoints
from nextrapolate.invalid_requests import making_a_request
from nextrapolate.jumped import check_has_not_jumped
from nextrapolate.schemas import CheckpointRef, Series

Source = str | Path | CheckpointRef | Series | Sequence[str | Path | CheckpointRef]
"""A run's folder; several checkpoint folders; several URIs, or one with a range in it; a series or its id.

A URI that does not tell its step comes with it, as a `CheckpointRef`.
"""

_SERIES_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")  # a ULID


@dataclass(frozen=True)
class LocalRun:
    """Checkpoints on this machine, which the service has yet to be given."""

    folder: Path
    checkpoints: tuple[LocalCheckpoint, ...]


@dataclass(frozen=True)
class RemoteCheckpoints:
    """Checkpoints that the service fetches itself."""

    refs: tuple[CheckpointRef, ...]


@dataclass(frozen=True)
class StoredSeries:
    """A run that the service has already."""

    id: str


Resolved = LocalRun | RemoteCheckpoints | StoredSeries
"""Where a trajectory's checkpoints are."""


@making_a_request()
def resolve(source: Source, until: int | None) -> Resolved:
    """Tell what `source` names; local folders are looked through, up to step `until`.

    Raises:
        CheckpointError: it names nothing, or a folder that cannot be used.
        ParameterError: a URI that is none.
    """
    match source:
        case Series():
            return StoredSeries(source.id)
        case Path():
            return _local(source, find_checkpoints(source, until))
        case CheckpointRef():
            return _several(source)
        case str():
            return _named(source, until)
    if not source:
        raise CheckpointError("no checkpoints were given: give a run's folder, or at least two checkpoints")
    if len(source) == 1:
        return resolve(source[0], until)
    refs = [ref for item in source if (ref := _as_ref(item))]
    if not refs:
        folders = [Path(item) for item in source if not isinstance(item, CheckpointRef)]
        # They may lie in several places: the run is where the last is, and its result goes there, too.
        return _local(folders[-1].absolute().parent, read_checkpoints(folders, until))
    if len(refs) < len(source):
        raise CheckpointError(
            f"{refs[0].uri} is a URI, but others are local folders; give all as URIs or all as folders"
        )
    return RemoteCheckpoints(tuple(refs))


def _named(source: str, until: int | None) -> Resolved:
    if ref := _as_ref(source):
        return _several(ref)
    if not source:
        raise CheckpointError(
            "an empty name was given instead of a folder, URI or series: is a variable unset?"
        )
    folder = Path(source)
    if not folder.exists() and _SERIES_ID.fullmatch(source):
        return StoredSeries(source)
    return _local(folder, find_checkpoints(folder, until))


def _several(ref: CheckpointRef) -> RemoteCheckpoints:
    if "{" not in ref.uri:
        raise CheckpointError(
            f"{ref.uri} is one checkpoint; give the URIs of at least two, or a range such as {{10..150..10}}"
        )
    return RemoteCheckpoints((ref,))


def _local(folder: Path, checkpoints: tuple[LocalCheckpoint, ...]) -> LocalRun:
    check_has_not_jumped(checkpoints)
    return LocalRun(folder, checkpoints)


def _as_ref(item: str | Path | CheckpointRef) -> CheckpointRef | None:
    if isinstance(item, str) and "://" in item:
        return CheckpointRef(uri=item)
    return item if isinstance(item, CheckpointRef) else None
