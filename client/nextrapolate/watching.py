"""Watching a run's folder: adapters that a trainer writes there are posted, and jumps made on schedule.

The trainer is told nothing and asked nothing. What a jump leaves is a folder with an adapter, for a restart.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from nextrapolate.client import NExtClient
from nextrapolate.errors import (
    APIError,
    AuthenticationError,
    CheckpointError,
    ConflictError,
    NextrapolateError,
    NotFoundError,
    ParameterError,
)
from nextrapolate.folders import LocalCheckpoint
from nextrapolate.jumped import JumpedError, check_has_not_jumped
from nextrapolate.schemas import ADAPTER_MODEL
from nextrapolate.watch_notes import NOTES, Notes
from nextrapolate.watched_folder import WatchedFolder
from nextrapolate.watched_jumps import WatchedJumps, WatchPlan
from nextrapolate.wire.transfers import Upload

_OF_THE_CONTENT = {409, 413, 422}  # the same files, sent again, would be refused again


class UnfitRunError(NextrapolateError):
    """The service takes no series of such a run, whatever checkpoints are still to come."""


class Watcher:
    """Looks after one folder.

    Args:
        client: the service.
        folder: where the trainer writes checkpoint-10, checkpoint-20, ... or what `folders` knows besides.
        plan: what to do.
        tell: takes what people should know, a line at a time.

    Raises:
        CheckpointError: there is no such folder, or its notes cannot be read.
    """

    def __init__(
        self, client: NExtClient, folder: Path, plan: WatchPlan, tell: Callable[[str], None]
    ) -> None:
        self._client = client
        self._folder = WatchedFolder(folder, self._tell_once)
        self._tell = tell
        self._told: set[str] = set()
        self.notes = Notes.read(folder)
        self._jumps = WatchedJumps(client, plan, folder, self.notes, tell)

    def run(self, every: float) -> bool:
        """Call the server, then look every so many seconds until no jump is left to make.

        Returns whether all of them were made; why one was not is told as it happens.

        Raises:
            AuthenticationError: the key is none, said now and not at the first checkpoint, hours later.
            JumpedError, UnfitRunError: as in `look`.
        """
        if not self._jumps.has_more():
            made = ", ".join(str(jump.path or f"none ({jump.failure})") for jump in self.notes.jumps)
            self._tell(f"all jumps have been made: {made}; remove {self._folder.path / NOTES} to start again")
            return self._jumps.made_all()
        self._tell(f"watching {self._folder.path} for {self._client.url}: {self._jumps.coming()}")
        reached = self._reach()
        while self.look():
            time.sleep(every)
            reached = reached or self._reach()
        return self._jumps.made_all()

    def look(self) -> bool:
        """Do what there is to do now; returns whether there will be more.

        Nothing is waited for: a trainer may remove its checkpoints again while a job is on its way. What a
        service cannot do now is tried again at the next look. A checkpoint that it refuses for what is in it
        is left out until it is written anew, and a jump that fails or is refused is given up.

        Raises:
            AuthenticationError: the key will not be another by then.
            JumpedError: the run has jumped by itself, and its folder tells no trajectory any more.
            UnfitRunError: the service takes no such run.
        """
        with self._trying_again():
            self._jumps.fetch_what_was_made()
        settled: list[LocalCheckpoint] = []
        with self._trying_again():
            settled.extend(self._folder.settled(self.notes))
        with self._trying_again():
            check_has_not_jumped(settled)
            for checkpoint in settled:
                self._post_or_leave_out(checkpoint)
            self._jump_if_due()
        return self._jumps.has_more()

    def _reach(self) -> bool:
        """Make a call that needs nothing but the server and a key that it knows."""
        with self._trying_again():
            self._client.methods()
            return True
        return False

    @contextmanager
    def _trying_again(self) -> Iterator[None]:
        """Tell of what another look may mend; a key will not be another by then, nor a run."""
        try:
            yield
        except (AuthenticationError, JumpedError, UnfitRunError):
            raise
        except (NextrapolateError, OSError) as error:
            self._tell_once(f"trying again: {error}")

    def _post_or_leave_out(self, checkpoint: LocalCheckpoint) -> None:
        try:
            config = checkpoint.config()
        except CheckpointError as error:
            self._folder.leave_out(checkpoint, error)
            return
        try:
            self._post(checkpoint, config)
        except (ParameterError, APIError) as error:
            if isinstance(error, APIError) and error.problem.status not in _OF_THE_CONTENT:
                raise
            self._folder.leave_out(checkpoint, error)

    def _post(self, checkpoint: LocalCheckpoint, config: dict[str, Any]) -> None:
        if self.notes.series is None:
            self.notes.series = self._begun_with(config)
            self._save()
        try:
            self._client.put_checkpoint(self.notes.series, checkpoint.step, checkpoint.folder)
        except NotFoundError:
            self.notes.forget_series()
            self._save()
            raise
        except ConflictError:
            if checkpoint.step not in self.notes.posted or not self._is_of_another_run(checkpoint):
                raise
            self._begin_anew_at(checkpoint.step)
            raise CheckpointError(
                f"step {checkpoint.step} is not the checkpoint that was posted: another run writes here now, "
                "and a new series begins, as its jumps do"
            ) from None
        is_new = checkpoint.step not in self.notes.posted
        self.notes.posted = sorted({*self.notes.posted, checkpoint.step})
        self.notes.stamps[checkpoint.step] = self._folder.stamps[checkpoint.step]
        self._save()
        if is_new:
            self._tell(f"posted step {checkpoint.step}")
            self._tell_of_a_gap_before(checkpoint.step)

    def _begun_with(self, config: dict[str, Any]) -> str:
        """Begin a series; one that is refused for what the run is would be so with its later checkpoints."""
        try:
            return self._client.create_series(
                self._folder.path.absolute().name,
                base_model=config.get("base_model_name_or_path"),
                lora_config=config,
            ).id
        except (ParameterError, APIError) as error:
            if isinstance(error, APIError) and error.problem.status not in _OF_THE_CONTENT:
                raise
            raise UnfitRunError(f"this run cannot be extrapolated: {error}") from error

    def _tell_of_a_gap_before(self, step: int) -> None:
        """Tell of steps that seem to be missing: what came and went between two looks, nobody has seen."""
        before = sorted(posted for posted in self.notes.posted if posted < step)
        if len(before) < 2:
            return
        widest = max(later - earlier for earlier, later in pairwise(before))
        last = max(known for known in {*before, *self._folder.stamps} if known < step)
        if step - last >= 2 * widest:
            self._tell(
                f"note: no checkpoint between step {last} and step {step} was posted, though earlier ones "
                f"are at most {widest} steps apart. If the trainer wrote some and removed them again, jumps "
                "are made without them: have it keep more checkpoints (save_total_limit), or lower --every"
            )

    def _is_of_another_run(self, checkpoint: LocalCheckpoint) -> bool:
        """Whether the weights are not those that were posted; a config may be written in another order."""
        series = self._client.get_series(str(self.notes.series))
        posted = {info.step: info.files.get(ADAPTER_MODEL) for info in series.checkpoints}
        return posted.get(checkpoint.step) != Upload(checkpoint.files[ADAPTER_MODEL]).info

    def _begin_anew_at(self, step: int) -> None:
        """Forget the run before, but for what it has left of later steps."""
        self._jumps.cancel()
        self.notes.begin_anew_at(step)
        self._told.clear()
        self._save()

    def _jump_if_due(self) -> None:
        """Jump from the newest checkpoint where one is due; a job that is on its way has to end first."""
        due, step = self._jumps.next_step(), max(self.notes.posted, default=0)
        missing = any(earlier < step for earlier in self._folder.waiting() - set(self.notes.posted))
        if self._jumps.pending() is None and due is not None and step >= due and not missing:
            self._jumps.submit(step)

    def _save(self) -> None:
        self.notes.write(self._folder.path)

    def _tell_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._tell(line)
