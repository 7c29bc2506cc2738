"""Collects a run's checkpoints, asks the service for the adapters ahead of them, and checks what comes back.

Knows no trainer: it takes tensors and hands over tensors. A jump is bounded in time, and it either returns
adapters that may be loaded as they are, or raises while nothing has happened to the run.
"""

import atexit
import logging
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file
from torch import Tensor

from nextrapolate import NExtClient
from nextrapolate.errors import NextrapolateError
from nextrapolate.schemas import ADAPTER_MODEL, Job, JobCreate, JumpInfo, Method, Report
from nextrapolate_trainer.adapter import Adapter, check, copied, modules, regauged_modules, update_ratio
from nextrapolate_trainer.asked_jobs import AskedJobs
from nextrapolate_trainer.bounded import within
from nextrapolate_trainer.errors import (
    InvalidAdapterError,
    JumpRefusedError,
    JumpTimeoutError,
    RunStopsError,
    TrainerPluginError,
    UploadError,
)
from nextrapolate_trainer.series import Run, RunSeries
from nextrapolate_trainer.settings import JumpSettings, OptimizerState
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.uploads import Uploads

logger = logging.getLogger("nextrapolate")

T = TypeVar("T")
R = TypeVar("R")

_BESIDE_THE_FACTORS = ("modules_to_save", "trainable_token_indices")
LAST_UPLOADS_SECONDS = 10.0
_IN_VAIN = 0.9  # of the time that there was; a refusal comes sooner
WITHDRAWING_SECONDS = 5.0
LEAST_PATIENCE_SECONDS = 10.0
"""What a jump waits at least, or the timeout where that is less, while the service answers nothing."""


@dataclass(frozen=True)
class Pause:
    """Seconds that the run waited for the service, by part."""

    uploads: float
    job: float
    download: float


@dataclass(frozen=True)
class JumpRequest:
    """The methods that a jump is asked of, and whether it is made without their reports' recommendation."""

    methods: Sequence[Method]
    """Each with its parameters: one job each, over the same files."""
    only_if_recommended: bool = False
    """A jump that its report does not recommend is not made."""


@dataclass(frozen=True)
class Jump:
    """An adapter that may take the place of the run's own, and how it came about."""

    step: int
    method: Method
    job: str
    after: dict[str, Tensor]
    """The extrapolated adapter: the run's tensors with other values, float32 on the CPU."""
    update_ratio: float
    """Norm of the update, as a share of the drift since training began."""
    regauged: frozenset[str]
    """Modules whose factors came back in another gauge than the run's: Adam's moments do not fit them."""
    report: Report | None
    """None where it cannot be read, which is no reason to do without the adapter."""
    pause: Pause
    address: str
    """Of the job, for a browser."""

    def modules_to_reset(self, optimizer: OptimizerState) -> frozenset[str]:
        """Return the modules whose moments are cleared where this adapter is swapped in."""
        return self.regauged if optimizer == "keep" else frozenset(modules(self.after))


_Result = tuple[Method, str, dict[str, Tensor], Report | None]
"""A method, and the job, adapter and report that came of it."""


class Jumper:
    """A run's checkpoints at the service, and the jumps that start from them.

    Args:
        client: the service.
        run: what the series says about the run.
        settings: the gate, and what a jump may take and be: jobs that take longer are cancelled.
        resumed: the state that the run goes on from; None at its beginning.
        next_jump: the step of the jump that comes next, to tell of; None where no jump lies ahead.
    """

    def __init__(
        self,
        client: NExtClient,
        run: Run,
        settings: JumpSettings,
        resumed: RunState | None = None,
        next_jump: int | None = None,
    ) -> None:
        if beside := [field for field in _BESIDE_THE_FACTORS if run.lora_config.get(field)]:
            logger.warning(
                "jumps move the LoRA factors only: %s keep their last trained value", " and ".join(beside)
            )
        self._client = client
        self._settings = settings
        self._start = run.start
        self._series = RunSeries(client, run, resumed)
        self._next_jump = next_jump
        self._is_introduced = False
        self._uploads = Uploads(self._post, self._begin)
        # An interrupted run closes nothing: then the end of the program does.
        atexit.register(self._uploads.close, LAST_UPLOADS_SECONDS)
        self._latest: tuple[int, dict[str, Tensor]] | None = None
        self._patience = settings.timeout
        self._answered = -math.inf

    def collect(self, step: int, adapter: Adapter) -> None:
        """Copy the adapter as it is after `step`, and post it in the background.

        Raises:
            RunRefusedError: nobody would take it; nothing is copied.
        """
        self._uploads.check()
        own = copied(adapter)
        self._latest = (step, own)
        self._uploads.put(step, own)

    def own_adapter(self, step: int) -> dict[str, Tensor]:
        """Return the run's own adapter after `step`, the last collected one, float32 on the CPU.

        Raises:
            UploadError: another step's was collected last.
        """
        collected, adapter = self._latest or (None, {})
        if collected != step:
            raise UploadError(f"the last collected checkpoint is of step {collected}, not of step {step}")
        return adapter

    def jumps_from(
        self, step: int, request: JumpRequest, is_stopping: Callable[[], bool] = lambda: False
    ) -> list[Jump]:
        """Have the series extrapolated from `step`, the last collected one; one checked adapter a method.

        Methods whose job fails, or whose adapter cannot be used, are left out, as long as one remains.

        Args:
            step: where the jump starts.
            request: the methods, and whether their reports have to recommend them.
            is_stopping: tells whether the run is to stop: then nothing is waited for any longer.

        Raises:
            JumpTimeoutError: the service took too long.
            RunStopsError: the run is to stop; its jobs are cancelled.
            UploadError: the checkpoint of `step` is not at the service.
            RunRefusedError: no checkpoint of the run ever will be.
            NextrapolateError: the service cannot be reached, refused or failed a job, or took too long.
            InvalidAdapterError: no adapter that came back fits the run.
            JumpRefusedError: no report recommends its jump, and only such a one is to be made.
        """
        self._uploads.check()
        before = self.own_adapter(step)
        delivered, pause = self._waited_for(step, request.methods, is_stopping)

        def checked(result: _Result) -> Jump:
            method, job, after, report = result
            if request.only_if_recommended and not (report and report.recommended):
                verdict = report.verdict if report else "it cannot be read"
                raise JumpRefusedError(f"the report of job {job} does not recommend it: {verdict}")
            ratio = self._checked_ratio(before, after)
            regauged = regauged_modules(before, after)
            address = f"{self._client.url}/jobs/{job}"
            return Jump(step, method, job, after, ratio, regauged, report, pause, address)

        return _those_that_succeed(checked, delivered)

    def record(self, jump: Jump) -> None:
        """Note that the jump's adapter was swapped in: later increments are measured from it.

        The service is told with the next checkpoint. No jump is asked for before it knows.
        """
        self._series.add_jump(jump.step, jump.job)

    def has_jumped_after(self, step: int) -> bool:
        """Tell whether a jump from `step` was made."""
        return any(jump.step == step for jump in self._series.jumps)

    def state(self, step: int, adapter: str | None = None, jump: Jump | None = None) -> RunState:
        """Return what the run has to know to go on from here, after `step`.

        Args:
            step: training steps that were made.
            adapter: fingerprint of the run's own adapter; None where a resumed run need not recognise it.
            jump: one whose adapter this is, and which is not recorded yet.
        """
        made = [] if jump is None else [JumpInfo(step=jump.step, job=jump.job)]
        return RunState(
            step=step,
            series=self._series.id,
            from_base=self._series.from_base,
            jumps=(*self._series.jumps, *made),
            adapter=adapter,
        )

    def close(self) -> None:
        """Let the last checkpoints and jumps reach the service, for some seconds.

        Raises:
            TrainerPluginError, NextrapolateError: they did not.
        """
        atexit.unregister(self._uploads.close)
        if not self._uploads.close(LAST_UPLOADS_SECONDS):
            raise UploadError(f"the last checkpoints were not uploaded within {LAST_UPLOADS_SECONDS:g} s")
        within(LAST_UPLOADS_SECONDS, self._series.record_jumps)

    def _waited_for(
        self, step: int, methods: Sequence[Method], is_stopping: Callable[[], bool]
    ) -> tuple[list[_Result], Pause]:
        """What is delivered in time. A jump to which nothing is answered halves what the next one waits.

        A service that hangs would cost the run its whole timeout at every jump. One that takes a checkpoint
        or a job is there, and waited for as long as told again: a job may take long, or wait for others'.
        """
        patience, started = self._patience, time.monotonic()
        jobs = AskedJobs(self._abandon)
        try:
            return within(
                patience, lambda: self._delivered(step, methods, started + patience, jobs), is_stopping
            )
        except (RunStopsError, KeyboardInterrupt, SystemExit):
            with suppress(JumpTimeoutError):
                within(WITHDRAWING_SECONDS, jobs.withdraw)
            raise
        except (TrainerPluginError, NextrapolateError):
            in_vain = time.monotonic() - started >= _IN_VAIN * patience
            if in_vain and self._answered < started:
                least = min(LEAST_PATIENCE_SECONDS, self._settings.timeout)
                self._patience = max(least, patience / 2)
                logger.warning(
                    "the service does not answer: until it does, a jump waits at most %g s", self._patience
                )
            raise

    def _begin(self) -> None:
        if self._series.begin():
            self._introduce()

    def _post(self, step: int, adapter: Adapter) -> None:
        self._series.post(step, adapter)
        self._introduce()
        self._note_answer()

    def _introduce(self) -> None:
        """Say once where the series is: a client finds servers by itself, and maybe another one."""
        if self._is_introduced:
            return
        self._is_introduced, ahead = True, self._next_jump
        logger.info(
            "checkpoints of this run go to %s/series/%s; %s",
            self._client.url,
            self._series.id,
            "no jump lies ahead" if ahead is None else f"the next jump is after step {ahead}",
        )

    def _note_answer(self) -> None:
        self._answered = time.monotonic()
        self._patience = self._settings.timeout

    def _delivered(
        self, step: int, methods: Sequence[Method], deadline: float, asked: AskedJobs
    ) -> tuple[list[_Result], Pause]:
        started = time.monotonic()
        self._uploads.wait_for(step, deadline - started)
        self._series.record_jumps()
        uploaded = time.monotonic()
        jobs = self._finished_jobs(step, methods, deadline, asked)
        finished = time.monotonic()
        results = _those_that_succeed(lambda each: (*each, *self._result(each[1])), jobs)
        return results, Pause(uploaded - started, finished - uploaded, time.monotonic() - finished)

    def _finished_jobs(
        self, step: int, methods: Sequence[Method], deadline: float, asked: AskedJobs
    ) -> list[tuple[Method, str]]:
        def submitted(method: Method) -> tuple[Method, str]:
            asked.check()
            job = self._submitted(step, method)
            if self._series.is_shared(job.steps):
                self._abandon(job.id)
                self._series.part()
                self._series.record_jumps()
                job = self._submitted(step, method)
            self._note_answer()
            asked.add(job.id)
            return method, job.id

        def finished(submission: tuple[Method, str]) -> tuple[Method, str]:
            try:
                self._client.wait(submission[1], timeout=max(0.0, deadline - time.monotonic()))
            except NextrapolateError:
                self._abandon(submission[1])
                raise
            return submission

        return _those_that_succeed(finished, _those_that_succeed(submitted, methods))

    def _submitted(self, step: int, method: Method) -> Job:
        request = JobCreate(series=self._series.id, until=step, method=method, gate=self._settings.gate)
        return self._client.submit(request)

    def _abandon(self, job: str) -> None:
        """Nobody will come for the result: leave the worker to others."""
        with suppress(NextrapolateError):
            self._client.cancel(job)

    def _result(self, job: str) -> tuple[dict[str, Tensor], Report | None]:
        """Return the adapter, and the report, which a jump can do without; no other file is fetched."""
        with tempfile.TemporaryDirectory(prefix="nextrapolate-") as folder:
            path = self._client.download(job, Path(folder) / job, files=[ADAPTER_MODEL])
            after = load_file(path / ADAPTER_MODEL)
        try:
            return after, self._client.report(job)
        except NextrapolateError as error:
            logger.warning("the report of job %s cannot be read: %s", job, error)
            return after, None

    def _checked_ratio(self, before: Adapter, after: Adapter) -> float:
        check(before, after)
        ratio = update_ratio(before, after, self._start)
        if ratio > (limit := self._settings.max_update_ratio):
            raise InvalidAdapterError(
                f"the update is {ratio:.1f} times the drift so far, and the limit is {limit:g}: ask for a "
                "shorter horizon or a smaller alpha, or raise max_update_ratio"
            )
        return ratio


def _those_that_succeed(act: Callable[[T], R], each: Sequence[T]) -> list[R]:
    """Return what `act` makes of each; those of which it makes nothing are left out, with a warning.

    Raises:
        TrainerPluginError, NextrapolateError: none is left; the first one's error.
    """
    made: list[R] = []
    failures: list[Exception] = []
    for one in each:
        try:
            made.append(act(one))
        except (TrainerPluginError, NextrapolateError) as error:
            failures.append(error)
    if not made:
        raise failures[0]
    for failure in failures:
        logger.warning(
            "one of the requested results is missing, and the jump is made without it: %s", failure
        )
    return made
