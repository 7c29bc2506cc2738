"""What is in a watched folder: which of it is a checkpoint of the run, alone of its step, and whole."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from nextrapolate.errors import CheckpointError, NextrapolateError
from nextrapolate.folders import REFERENCE, LocalCheckpoint, adapter_folder, named_step, step_of
from nextrapolate.schemas import ADAPTER_CONFIG
from nextrapolate.watch_notes import Notes, Stamp


class WatchedFolder:
    """A folder that a trainer writes into, as it is from one look to the next.

    Args:
        path: where the trainer writes checkpoint-10, checkpoint-20, ... or what `folders` knows besides.
        tell_once: takes what people should know, at every look anew; passes each line on once.

    Raises:
        CheckpointError: there is no such folder.
    """

    def __init__(self, path: Path, tell_once: Callable[[str], None]) -> None:
        if not path.is_dir():
            raise CheckpointError(f"there is no folder {path}")
        self.path = path
        self.stamps: dict[int, Stamp] = {}
        """Of the checkpoints that have yet to be posted, or posted again, as the last look found them."""
        self._tell_once = tell_once
        self._refused: dict[int, Stamp] = {}
        self._without: set[Path] = set()

    def settled(self, notes: Notes) -> Iterator[LocalCheckpoint]:
        """Give the checkpoints that are new, and that nobody has written to since the last look."""
        before, self.stamps = self.stamps, {}
        found: dict[int, list[Path]] = {}
        for folder in sorted(path.parent for path in self._configs()):
            if (step := step_of(folder, self.path)) is not None:
                found.setdefault(step, []).append(folder)
        found = {step: _of_the_step(step, folders) for step, folders in found.items()}
        self._tell_of_others(found)
        for step in sorted(found):
            if step in notes.posted and not _is_written_anew(step, found[step][0], notes):
                continue
            if len(found[step]) > 1:
                both = " and ".join(map(str, found[step]))
                self._tell_once(f"step {step} is left out for now: {both} are both of it; leave one there")
                continue
            with self._leaving_out(step):
                checkpoint = LocalCheckpoint(step, adapter_folder(found[step][0]))
                stamp = _stamp(checkpoint)
                if stamp == notes.left_behind.get(step):
                    continue
                self.stamps[step] = stamp
                if self.stamps[step] == before.get(step) and not self._is_left_out(step):
                    yield checkpoint

    def waiting(self) -> set[int]:
        """Steps that the last look found, and that nothing stands in the way of."""
        return {step for step in self.stamps if not self._is_left_out(step)}

    def leave_out(self, checkpoint: LocalCheckpoint, error: NextrapolateError) -> None:
        """Leave a checkpoint out until it is written anew, and tell why."""
        self._refused[checkpoint.step] = self.stamps[checkpoint.step]
        self._tell_once(f"step {checkpoint.step} is left out: {error}")

    def _tell_of_others(self, found: Collection[int]) -> None:
        """Tell of checkpoints that have held no adapter since the last look: they will hardly come to one."""
        before, self._without = self._without, set()
        for folder in sorted(path for path in self.path.iterdir() if path.is_dir()):
            step = named_step(folder.name)
            if step is None or step in found:
                continue
            self._without.add(folder)
            if folder in before:
                with self._leaving_out(step):
                    adapter_folder(folder)

    @contextmanager
    def _leaving_out(self, step: int) -> Iterator[None]:
        try:
            yield
        except CheckpointError as error:
            self._tell_once(f"step {step} is left out for now: {error}")

    def _configs(self) -> Iterator[Path]:
        for path in self.path.rglob(ADAPTER_CONFIG):
            parts = path.relative_to(self.path).parts
            if REFERENCE not in parts and not any(part.startswith(".") for part in parts):
                yield path

    def _is_left_out(self, step: int) -> bool:
        return self._refused.get(step) == self.stamps[step]


def _of_the_step(step: int, folders: list[Path]) -> list[Path]:
    """The folders that are named for it; those within, as of a model's second adapter, where none is."""
    return [folder for folder in folders if named_step(folder.name) == step] or folders


def _stamp(checkpoint: LocalCheckpoint) -> Stamp:
    stats = [path.stat() for path in checkpoint.files.values()]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def _is_written_anew(step: int, folder: Path, notes: Notes) -> bool:
    """Whether a checkpoint is not as it was when it was posted; one that is being removed is."""
    try:
        stamp = _stamp(LocalCheckpoint(step, adapter_folder(folder)))
    except (CheckpointError, OSError):
        return False
    return stamp != notes.stamps.get(step, stamp)
