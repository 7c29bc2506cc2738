"""Watching a run's folder: adapters that a trainer writes there are posted, and jumps made on schedule.

The trainer is told nothing and asked nothing. What a jump leaves is a folder with an adapter, for a restart.
"""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from nextrapolate.client import NExtClient
from nextrapolate.errors import (
    APIError,
    AuthenticationError,
    CheckpointError,
    ConflictError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    NextrapolateError,
    NotFoundError,
    ParameterError,
)
from nextrapolate.extrapolation import result_name
from nextrapolate.flows import succeeded
from nextrapolate.folders import REFERENCE, LocalCheckpoint, adapter_folder, named_step, step_of
from nextrapolate.jumped import JumpedError, check_has_not_jumped
from nextrapolate.schemas import ADAPTER_CONFIG, ADAPTER_MODEL, REPORT, JobCreate, Method
from nextrapolate.watch_notes import NOTES, Jump, Notes, Stamp
from nextrapolate.wire.transfers import Upload

_OF_THE_CONTENT = {409, 413, 422}  # the same files, sent again, would be refused again
_TOO_EARLY = {"too-few-checkpoints", "nothing-moved", "checkpoint-incomplete"}  # later checkpoints mend it


@dataclass(frozen=True)
class WatchPlan:
    """When to jump, how, and where the adapters go.

    Attributes:
        method: the method with its parameters.
        jump_at: the first jump starts from this step, or from the newest checkpoint beyond it.
        jump_every: steps between further jumps; None jumps once.
        out: folder that takes the adapters, each in a folder `extrapolated-<step>`.
    """

    method: Method
    jump_at: int
    jump_every: int | None
    out: Path


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
        if not folder.is_dir():
            raise CheckpointError(f"there is no folder {folder}")
        self._client = client
        self._folder = folder
        self._plan = plan
        self._tell = tell
        self._told: set[str] = set()
        self._stamps: dict[int, Stamp] = {}
        self._refused: dict[int, Stamp] = {}
        self._without: set[Path] = set()
        self.notes = Notes.read(folder)

    def run(self, every: float) -> bool:
        """Call the server, then look every so many seconds until no jump is left to make.

        Returns whether all of them were made; why one was not is told as it happens.

        Raises:
            AuthenticationError: the key is none, said now and not at the first checkpoint, hours later.
            JumpedError: as in `look`.
        """
        if not self._has_more():
            made = ", ".join(str(jump.path or f"none ({jump.failure})") for jump in self.notes.jumps)
            self._tell(f"all jumps have been made: {made}; remove {self._folder / NOTES} to start again")
            return self._made_all()
        self._tell(f"watching {self._folder} for {self._client.url}: {self._coming()}")
        reached = self._reach()
        while self.look():
            time.sleep(every)
            reached = reached or self._reach()
        return self._made_all()

    def look(self) -> bool:
        """Do what there is to do now; returns whether there will be more.

        Nothing is waited for: a trainer may remove its checkpoints again while a job is on its way. What a
        service cannot do now is tried again at the next look. A checkpoint that it refuses for what is in it
        is left out until it is written anew, and a jump that fails or is refused is given up.

        Raises:
            AuthenticationError: the key will not be another by then.
            JumpedError: the run has jumped by itself, and its folder tells no trajectory any more.
        """
        with self._trying_again():
            self._fetch_what_was_made()
        settled: list[LocalCheckpoint] = []
        with self._trying_again():
            settled.extend(self._settled())
        with self._trying_again():
            check_has_not_jumped(settled)
            for checkpoint in settled:
                self._post_or_leave_out(checkpoint)
            self._jump_if_due()
        return self._has_more()

    def _reach(self) -> bool:
        """Make a call that needs nothing but the server and a key that it knows."""
        with self._trying_again():
            self._client.methods()
            return True
        return False

    @contextmanager
    def _trying_again(self) -> Iterator[None]:
        """Tell of what another look may mend; a key will not be another by then, nor a run's past."""
        try:
            yield
        except (AuthenticationError, JumpedError):
            raise
        except (NextrapolateError, OSError) as error:
            self._tell_once(f"trying again: {error}")

    def _coming(self) -> str:
        """Say what comes next."""
        if (jump := self._pending()) is not None:
            return f"the jump from step {jump.step} is job {jump.job}"
        which = "next" if self.notes.jumps else "first"
        return f"the {which} jump is from step {self._next_jump()}, or the newest checkpoint beyond it"

    def _has_more(self) -> bool:
        return self._next_jump() is not None or self._pending() is not None

    def _made_all(self) -> bool:
        return all(jump.failure is None for jump in self.notes.jumps)

    def _settled(self) -> Iterator[LocalCheckpoint]:
        """Give the checkpoints that are new, and that nobody has written to since the last look."""
        before, self._stamps = self._stamps, {}
        found: dict[int, list[Path]] = {}
        for folder in sorted(path.parent for path in self._configs()):
            if (step := step_of(folder, self._folder)) is not None:
                found.setdefault(step, []).append(folder)
        self._tell_of_others(found)
        for step in sorted(found):
            if step in self.notes.posted and not self._is_written_anew(step, found[step][0]):
                continue
            if len(found[step]) > 1:
                both = " and ".join(map(str, found[step]))
                self._tell_once(f"step {step} is left out for now: {both} are both of it; leave one there")
                continue
            with self._leaving_out(step):
                checkpoint = LocalCheckpoint(step, adapter_folder(found[step][0]))
                stamp = _stamp(checkpoint)
                if stamp == self.notes.left_behind.get(step):
                    continue
                self._stamps[step] = stamp
                if self._stamps[step] == before.get(step) and not self._is_left_out(step):
                    yield checkpoint

    def _is_written_anew(self, step: int, folder: Path) -> bool:
        """Whether a checkpoint is not as it was when it was posted; one that is being removed is."""
        try:
            stamp = _stamp(LocalCheckpoint(step, adapter_folder(folder)))
        except (CheckpointError, OSError):
            return False
        return stamp != self.notes.stamps.get(step, stamp)

    def _tell_of_others(self, found: Collection[int]) -> None:
        """Tell of checkpoints that have held no adapter since the last look: they will hardly come to one."""
        before, self._without = self._without, set()
        for folder in sorted(path for path in self._folder.iterdir() if path.is_dir()):
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
        for path in self._folder.rglob(ADAPTER_CONFIG):
            parts = path.relative_to(self._folder).parts
            if REFERENCE not in parts and not any(part.startswith(".") for part in parts):
                yield path

    def _is_left_out(self, step: int) -> bool:
        return self._refused.get(step) == self._stamps[step]

    def _post_or_leave_out(self, checkpoint: LocalCheckpoint) -> None:
        try:
            config = checkpoint.config()
        except CheckpointError as error:
            self._leave_out(checkpoint, error)
            return
        try:
            self._post(checkpoint, config)
        except (ParameterError, APIError) as error:
            if isinstance(error, APIError) and error.problem.status not in _OF_THE_CONTENT:
                raise
            self._leave_out(checkpoint, error)

    def _leave_out(self, checkpoint: LocalCheckpoint, error: NextrapolateError) -> None:
        self._refused[checkpoint.step] = self._stamps[checkpoint.step]
        self._tell_once(f"step {checkpoint.step} is left out: {error}")

    def _post(self, checkpoint: LocalCheckpoint, config: dict[str, Any]) -> None:
        if self.notes.series is None:
            self.notes.series = self._client.create_series(
                self._folder.absolute().name,
                base_model=config.get("base_model_name_or_path"),
                lora_config=config,
            ).id
            self._save()
        try:
            self._client.put_checkpoint(self.notes.series, checkpoint.step, checkpoint.folder)
        except NotFoundError:
            # The service has lost the series: all that is here goes into a new one.
            self.notes.series, self.notes.posted, self.notes.stamps = None, [], {}
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
        self.notes.stamps[checkpoint.step] = self._stamps[checkpoint.step]
        self._save()
        if is_new:
            self._tell(f"posted step {checkpoint.step}")
            self._tell_of_a_gap_before(checkpoint.step)

    def _tell_of_a_gap_before(self, step: int) -> None:
        """Tell of steps that seem to be missing: what came and went between two looks, nobody has seen."""
        before = sorted(posted for posted in self.notes.posted if posted < step)
        if len(before) < 2:
            return
        widest = max(later - earlier for earlier, later in pairwise(before))
        last = max(known for known in {*before, *self._stamps} if known < step)
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
        """Forget the run before, but for what it has left of later steps; nobody waits for its jump now."""
        if (jump := self._pending()) is not None:
            with suppress(NextrapolateError):
                self._client.cancel(jump.job)
        later = {behind: stamp for behind, stamp in self.notes.stamps.items() if behind > step}
        self.notes = Notes(left_behind=later)
        self._told.clear()
        self._save()

    def _jump_if_due(self) -> None:
        """Jump from the newest checkpoint where one is due; a job that is on its way has to end first."""
        due, step = self._next_jump(), max(self.notes.posted, default=0)
        waiting = {on_disk for on_disk in self._stamps if not self._is_left_out(on_disk)}
        missing = any(earlier < step for earlier in waiting - set(self.notes.posted))
        if self._pending() is None and due is not None and step >= due and not missing:
            self._submit(step)

    def _submit(self, step: int) -> None:
        """Submit the job of a jump; one that would be refused again, whatever comes, is given up."""
        request = JobCreate(series=self.notes.series, until=step, method=self._plan.method)
        try:
            job = self._client.submit(request, idempotency_key=_key_of(request))
            jump = Jump(step=step, job=job.id)
        except (ConflictError, InvalidRequestError) as error:
            if error.problem.retryable or error.problem.code in _TOO_EARLY:
                raise
            jump = Jump(step=step, failure=str(error))
        self.notes.jumps.append(jump)
        self._save()
        self._tell(f"no jump: {jump.failure}" if jump.failure else self._coming())

    def _fetch_what_was_made(self) -> None:
        """Fetch the adapter of the jump that is on its way, if its job has ended by now."""
        jump = self._pending()
        if jump is None:
            return
        try:
            if (job := self._client.get_job(jump.job)).state.is_final:
                succeeded(job)
                self._fetch(jump)
        except (JobFailedError, JobCancelledError, NotFoundError) as error:
            self._note_jump(failure=str(error))
            self._tell(f"no jump: {error}")

    def _fetch(self, jump: Jump) -> None:
        report = self._client.report(jump.job)
        path = self._place(jump, result_name(report.target_step))
        if not path.exists():
            self._client.download(jump.job, path)
        self._note_jump(path=path)
        self._tell(f"extrapolated step {jump.step} to {report.target_step}: {report.verdict}")
        for warning in report.warnings:
            self._tell(f"note: {warning}")
        self._tell(restart_command(path, self._folder))

    def _place(self, jump: Jump, name: str) -> Path:
        """Where the result goes: beside one that an earlier watch has left, if there is one.

        It is there already where this process was killed before it could note that.
        """
        places = self._plan.out / name, self._plan.out / f"{name}-{jump.job[-8:].lower()}"
        return next((place for place in places if not place.exists() or _is_of(place, jump.job)), places[-1])

    def _next_jump(self) -> int | None:
        """Return the step that the next jump waits for; None after the last."""
        if not self.notes.jumps:
            return self._plan.jump_at
        if self._plan.jump_every is None:
            return None
        passed = max(0, self.notes.jumps[-1].step - self._plan.jump_at) // self._plan.jump_every
        return self._plan.jump_at + (passed + 1) * self._plan.jump_every

    def _pending(self) -> Jump | None:
        return next((jump for jump in self.notes.jumps if not (jump.path or jump.failure)), None)

    def _note_jump(self, *, path: Path | None = None, failure: str | None = None) -> None:
        jump = self._pending()
        assert jump is not None  # noqa: S101 (one has just ended)
        jump.path, jump.failure = path, failure
        self._save()

    def _save(self) -> None:
        self.notes.write(self._folder)

    def _tell_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._tell(line)


def _stamp(checkpoint: LocalCheckpoint) -> Stamp:
    stats = [path.stat() for path in checkpoint.files.values()]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def _key_of(request: JobCreate) -> str:
    """The key of a jump's job: a watch that is killed before it has noted the job gets the same one again."""
    return f"watch-{hashlib.sha256(request.model_dump_json().encode()).hexdigest()}"


def _is_of(result: Path, job_id: str) -> bool:
    """Whether a folder holds what this job made; a download appears there whole or not at all."""
    try:
        return bool(json.loads((result / REPORT).read_bytes())["job"] == job_id)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def restart_command(adapter: Path, folder: Path) -> str:
    """Return what starts training anew from an adapter, in the words of trainers that write such a folder."""
    again = "to extrapolate that run as well, copy the adapter to {} of its output folder: it starts there"
    if next(folder.rglob("global_step_*"), None) is not None:
        return (
            "start verl again, with a new default_local_dir and:\n"
            f"  actor_rollout_ref.model.lora_adapter_path={adapter} trainer.resume_mode=disable\n"
            f"{again.format('global_step_0')}"
        )
    return (
        "start the trainer again, with a new output folder and:\n"
        f'  TRL, Unsloth  model = PeftModel.from_pretrained(base_model, "{adapter}", is_trainable=True)\n'
        f"  Axolotl       lora_model_dir: {adapter}\n"
        f"  ms-swift      --adapters {adapter}\n"
        f"{again.format('checkpoint-0')}"
    )
