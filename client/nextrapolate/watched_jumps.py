"""The jumps of a watched run: which is due, which job is on its way, and where its adapter goes."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nextrapolate.client import NExtClient
from nextrapolate.errors import (
    ConflictError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    NextrapolateError,
    NotFoundError,
)
from nextrapolate.extrapolation import result_name
from nextrapolate.flows import succeeded
from nextrapolate.schemas import REPORT, JobCreate, Method, digest_of
from nextrapolate.watch_notes import Jump, Notes

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


class WatchedJumps:
    """Makes the jumps of a plan, one after the other.

    Args:
        client: the service.
        plan: when, how, and where to.
        folder: where the run is, and its notes.
        notes: they take down each job before anything else is done.
        tell: takes what people should know, a line at a time.
    """

    def __init__(
        self, client: NExtClient, plan: WatchPlan, folder: Path, notes: Notes, tell: Callable[[str], None]
    ) -> None:
        self._client = client
        self._plan = plan
        self._folder = folder
        self._notes = notes
        self._tell = tell

    def next_step(self) -> int | None:
        """Return the step that the next jump waits for; None after the last."""
        first, every = self._plan.jump_at, self._plan.jump_every
        if not self._notes.jumps or (last := self._notes.jumps[-1].step) < first:  # by another plan
            return first
        return None if every is None else first + ((last - first) // every + 1) * every

    def pending(self) -> Jump | None:
        """Return the jump whose job is on its way."""
        return next((jump for jump in self._notes.jumps if not (jump.path or jump.failure)), None)

    def coming(self) -> str:
        """Say what comes next."""
        if (jump := self.pending()) is not None:
            return f"the jump from step {jump.step} is job {jump.job}"
        which = "next" if self._notes.jumps else "first"
        return f"the {which} jump is from step {self.next_step()}, or the newest checkpoint beyond it"

    def has_more(self) -> bool:
        """Return whether a jump is to be made yet, or on its way."""
        return self.next_step() is not None or self.pending() is not None

    def made_all(self) -> bool:
        """Return whether each that was due was made."""
        return all(jump.failure is None for jump in self._notes.jumps)

    def submit(self, step: int) -> None:
        """Submit the job of a jump; one that would be refused again, whatever comes, is given up.

        Raises:
            NotFoundError: the service has lost the series; it is forgotten.
            NextrapolateError: it cannot be submitted now.
        """
        request = JobCreate(series=self._notes.series, until=step, method=self._plan.method)
        try:
            job = self._client.submit(request, idempotency_key=_key_of(request))
            jump = Jump(step=step, job=job.id)
        except NotFoundError:
            self._notes.forget_series()
            self._notes.write(self._folder)
            raise
        except (ConflictError, InvalidRequestError) as error:
            if error.problem.retryable or error.problem.code in _TOO_EARLY:
                raise
            jump = Jump(step=step, failure=str(error))
        self._notes.jumps.append(jump)
        self._notes.write(self._folder)
        self._tell(f"no jump: {jump.failure}" if jump.failure else self.coming())

    def fetch_what_was_made(self) -> None:
        """Fetch the adapter of the jump that is on its way, if its job has ended by now."""
        jump = self.pending()
        if jump is None:
            return
        try:
            if (job := self._client.get_job(jump.job)).state.is_final:
                succeeded(job)
                self._fetch(jump)
        except NotFoundError as error:
            self._notes.jumps.remove(jump)
            self._notes.write(self._folder)
            self._tell(f"trying again: {error}")
        except (JobFailedError, JobCancelledError) as error:
            self._note_jump(failure=str(error))
            self._tell(f"no jump: {error}")

    def cancel(self) -> None:
        """Cancel the job that is on its way, if the service can be told: nobody waits for its adapter."""
        if (jump := self.pending()) is not None:
            with suppress(NextrapolateError):
                self._client.cancel(jump.job)

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

    def _note_jump(self, *, path: Path | None = None, failure: str | None = None) -> None:
        jump = self.pending()
        assert jump is not None  # noqa: S101 (one has just ended)
        jump.path, jump.failure = path, failure
        self._notes.write(self._folder)


def _key_of(request: JobCreate) -> str:
    """The key of a jump's job: a watch that is killed before it has noted the job gets the same one again."""
    return f"watch-{digest_of(request)}"


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
