"""The synchronous client."""

import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

import httpx
from httpx import codes
from httpx_sse import EventSource
from tenacity import Retrying

from nextrapolate import evidence, flows
from nextrapolate.errors import APIError, NextrapolateError, ServiceUnreachable
from nextrapolate.evidence import Question
from nextrapolate.extrapolation import Extrapolation, folder_for, folder_here, question_for
from nextrapolate.folders import LocalCheckpoint, adapter_folder
from nextrapolate.methods import make_method
from nextrapolate.progress import OnProgress, Tracker
from nextrapolate.schemas import (
    HORIZON_STEPS,
    CheckpointFile,
    Comparison,
    FileInfo,
    Gate,
    Inspection,
    Job,
    JobEvent,
    JobRequest,
    JobState,
    Labels,
    Method,
    MethodInfo,
    Output,
    Report,
    Series,
)
from nextrapolate.sources import Source
from nextrapolate.wire import calls
from nextrapolate.wire.calls import Call, ReportT
from nextrapolate.wire.events import Listener
from nextrapolate.wire.retries import PATIENCE
from nextrapolate.wire.servers import find_server
from nextrapolate.wire.session import Session
from nextrapolate.wire.transfers import Download, Upload

T = TypeVar("T")


class NExtClient:
    """Talks to a nextrapolate service. One may be shared by several threads.

    Args:
        url: the service's address; else NEXTRAPOLATE_URL, else the embedded server's own, http://127.0.0.1:8008.
        api_key: else NEXTRAPOLATE_API_KEY, else what an embedded server on this machine has noted.
        timeout: seconds that a connection may take, or be silent.
        patience: seconds that a wait goes on while a server that has answered before cannot be reached.
        hub_token: your Hugging Face token; else NEXTRAPOLATE_HUB_TOKEN. Sent with jobs over hf:// checkpoints
            alone; the service deletes it when the job is over.

    Every method raises `ServiceUnreachable` when nobody answers after a few tries, and a kind of `APIError`
    when the service refuses. What may pass (a lost connection, 429, 503, anything the service calls
    retryable) is tried again, with growing jittered pauses or after the time the service asks for. That a
    server has gone away, and that it is back, is a warning each of the logger `nextrapolate`. What cannot be
    an id, such as "" or "..", is a `ParameterError`, before anything is sent.

    Raises:
        ConfigurationError: the address or the noted key cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        patience: float = PATIENCE,
        hub_token: str | None = None,
    ) -> None:
        self._session = Session(find_server(url, api_key, hub_token), timeout, patience)
        self._http = httpx.Client(**self._session.http_options())

    @property
    def url(self) -> str:
        """The service's address."""
        return self._session.server.url

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Methods and series -------------------------------------------------------------------------------------

    def methods(self) -> list[MethodInfo]:
        """List the methods that this service runs, with the JSON schema of their parameters."""
        return self._send(calls.list_methods()).methods

    def create_series(
        self,
        name: str,
        *,
        base_model: str | None = None,
        lora_config: dict[str, Any] | None = None,
        labels: Labels | None = None,
    ) -> Series:
        """Announce a run; `lora_config` stands in for checkpoints that bring no adapter_config.json.

        Raises:
            ParameterError: a blank name, or labels that are too many or too long.
        """
        return self._send(
            calls.create_series(name, base_model=base_model, lora_config=lora_config, labels=labels)
        )

    def get_series(self, series_id: str) -> Series:
        """Tell what has arrived of a run."""
        return self._send(calls.get_series(series_id))

    def delete_series(self, series_id: str) -> None:
        """Remove a run. Its jobs stay, and so do the files they read, for as long as they do."""
        self._send(calls.delete_series(series_id))

    def list_series(self, *, limit: int = 100) -> list[Series]:
        """List runs, newest first."""
        return self._run(flows.newest(calls.list_series, limit))

    def put_file(self, series_id: str, step: int, name: CheckpointFile, data: bytes | Path) -> FileInfo:
        """Upload one file of a checkpoint, streamed from disk if it is a path, with its digest.

        Nothing is sent where the service has the same content already, from this run or another.

        Raises:
            ParameterError: a file that no checkpoint has.
        """
        files = self._run(flows.upload_files(series_id, step, {name: Upload(data)}))
        return files[name]

    def put_checkpoint(self, series_id: str, step: int, folder: str | Path) -> dict[CheckpointFile, FileInfo]:
        """Upload both files of a PEFT adapter, as far as the service does not have them; the config last.

        Raises:
            CheckpointError: the folder holds none, or not in safetensors.
        """
        checkpoint = LocalCheckpoint(step, adapter_folder(Path(folder)))
        return self._run(flows.upload_checkpoint(series_id, checkpoint))

    def announce(
        self, series_id: str, step: int, digests: Mapping[CheckpointFile, str]
    ) -> list[CheckpointFile]:
        """Give a checkpoint files that the service has already, from this run or another, by their sha256.

        Returns the names of those that it does not have: they have to be put.

        Raises:
            ParameterError: a file that no checkpoint has, or a digest that is none.
        """
        return self._send(calls.announce_digests(series_id, step, digests)).missing

    def record_jump(self, series_id: str, step: int, job_id: str) -> Series:
        """Tell that this job's adapter was swapped into the running trainer after this step.

        Raises:
            ParameterError: a step below 0, or past all that are taken.
        """
        return self._send(calls.record_jump(series_id, step, job_id))

    # Jobs ---------------------------------------------------------------------------------------------------

    def submit(self, request: JobRequest, *, idempotency_key: str | None = None) -> Job:
        """Submit a job. It always carries an Idempotency-Key, so that a retry never makes a second one.

        Raises:
            ParameterError: a key that is not 1 to 255 characters of ASCII, or has a space at an end.
        """
        return self._send(calls.submit(request, idempotency_key))

    def get_job(self, job_id: str) -> Job:
        """Get a job as it stands."""
        return self._send(calls.get_job(job_id))

    def list_jobs(self, *, state: JobState | None = None, limit: int = 100) -> list[Job]:
        """Jobs, newest first."""
        return self._run(flows.newest(lambda size, cursor: calls.list_jobs(state, size, cursor), limit))

    def cancel(self, job_id: str) -> Job:
        """Ask for a job's end: a queued one ends at once, a running one within seconds."""
        return self._send(calls.cancel(job_id))

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[JobEvent]:
        """Iterate over a job's events from the first, or from the one after id `after`, until its last.

        A lost connection or a restarted server interrupts it, but no event is missed and none comes twice.
        """
        return self._listen(Listener(self._session, job_id, after=after))

    def wait(
        self, job_id: str, *, timeout: float | None = None, on_event: Callable[[JobEvent], None] | None = None
    ) -> Job:
        """Wait until a job has succeeded, over restarts of the server.

        Args:
            job_id: whose end to wait for.
            timeout: seconds; None waits for as long as it takes.
            on_event: called with every event of the job, from the first.

        Raises:
            JobFailedError: it failed.
            JobCancelledError: it was cancelled.
            WaitTimeoutError: it is not finished yet.
            ServiceUnreachable: the server was gone for longer than the client's patience.
        """
        with closing(self._listen(Listener(self._session, job_id, timeout=timeout))) as events:
            for event in events:
                if on_event:
                    on_event(event)
        return flows.succeeded(self.get_job(job_id))

    def download(self, job_id: str, out: str | Path, *, files: Collection[str] | None = None) -> Path:
        """Download a job's result into the folder `out`, which appears when all files are there and verified.

        Args:
            job_id: a job that has succeeded.
            out: a folder that is not there yet, or empty.
            files: names of those to fetch, such as "adapter_model.safetensors"; None fetches all.

        Raises:
            CheckpointError: `out` is there already and not empty.
            DownloadError: the job is not finished or has no such file, or a file arrived damaged.
            JobFailedError, JobCancelledError: there is no result.
        """
        tracker = Tracker(None, uploads=False, downloads=True)
        return self._run(flows.download_result(job_id, Path(out), tracker, files))

    @overload
    def report(self, job_id: str) -> Report: ...

    @overload
    def report(self, job_id: str, kind: type[ReportT]) -> ReportT: ...

    def report(self, job_id: str, kind: type[Any] = Report) -> Any:
        """Tell what a job did, on what evidence, and what it cost.

        Args:
            job_id: a job that has succeeded.
            kind: `Report` of an extrapolation, `Comparison` of a backtest, `Inspection` of an inspection.

        Raises:
            ParameterError: the job's report is of another kind.
            DownloadError, JobFailedError, JobCancelledError: the job has none yet, or never will.
        """
        return self._run(flows.report_of(job_id, kind))

    def extrapolate(
        self,
        source: Source,
        *,
        method: str | Method = "auto",
        until: int | None = None,
        out: str | Path | None = None,
        name: str | None = None,
        output: Output | None = None,
        gate: Gate | None = None,
        labels: Labels | None = None,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
        **parameters: Any,
    ) -> Extrapolation:
        """Predict the adapter that training would reach `horizon_steps` after the last checkpoint.

        Args:
            source: a run's folder with checkpoint-10, checkpoint-20, ... in it; a list of checkpoint folders;
                a list of URIs that the service may read (`CheckpointRef`: with a step); a series or its id.
            method: a method's name, or a method with its parameters.
            until: use the checkpoints up to this training step only.
            out: folder for the result; by default extrapolated-<step> in the run's folder, or else here.
            name: name of the series that local checkpoints become; by default the folder's.
            output: rank and dtype of the adapter.
            gate: thresholds below which a module keeps the last checkpoint.
            labels: for people to find the series and the job by.
            on_progress: called with every bit of progress, from upload to download.
            timeout: seconds to wait for the job, uploads and downloads not counted.
            **parameters: the method's own, such as horizon_steps=50, alpha=1.5; see `schemas.Method`.

        Raises:
            ParameterError: an unknown method or parameter, or a value out of its range.
            CheckpointError: a local folder that cannot be used, as source or as result.
            JobFailedError, JobCancelledError, WaitTimeoutError, DownloadError: as in `wait` and `download`.
        """
        chosen = make_method(method, **parameters)
        question = question_for(source, method=chosen, until=until, output=output, gate=gate)
        folder = folder_for(question, chosen, out)
        tracker = question.tracker(on_progress)
        job = self._run(question.start(name, labels, tracker))
        folder = folder or folder_here(job, chosen)
        job = self.wait(job.id, timeout=timeout, on_event=tracker.event)
        path = self._run(flows.download_result(job.id, folder, tracker))
        return Extrapolation(job, path, self._send(calls.report(job.id, Report)))

    def backtest(
        self,
        source: Source,
        *,
        at: int,
        horizon_steps: int = HORIZON_STEPS,
        methods: Sequence[str | Method] | None = None,
        name: str | None = None,
        labels: Labels | None = None,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> Comparison:
        """Score methods on a part of the run that is known already: nothing is extrapolated.

        Args:
            source: the run, as in `extrapolate`.
            at: the origin: methods see the checkpoints up to this step.
            horizon_steps: they are asked for the checkpoint this many steps later, which has to be there.
            methods: names, or methods with their parameters; all of them by default.
            name: name of the series that local checkpoints become; by default the folder's.
            labels: for people to find the series and the job by.
            on_progress: called with every bit of progress, from upload to the job's end.
            timeout: seconds to wait for the job, uploads not counted.

        Raises:
            ParameterError: an unknown method, or a value out of its range.
            CheckpointError: a local folder that cannot be used.
            JobFailedError, JobCancelledError, WaitTimeoutError: as in `wait`.
        """
        question = evidence.backtest(source, at=at, horizon_steps=horizon_steps, methods=methods)
        return self._answer(question, name, labels, on_progress, timeout)

    def inspect(
        self,
        source: Source,
        *,
        until: int | None = None,
        name: str | None = None,
        labels: Labels | None = None,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> Inspection:
        """Measure the geometry of a run, and whether it is one where extrapolation should pay.

        Args:
            source: the run, as in `extrapolate`.
            until: use the checkpoints up to this training step only.
            name: name of the series that local checkpoints become; by default the folder's.
            labels: for people to find the series and the job by.
            on_progress: called with every bit of progress, from upload to the job's end.
            timeout: seconds to wait for the job, uploads not counted.

        Raises:
            CheckpointError: a local folder that cannot be used.
            JobFailedError, JobCancelledError, WaitTimeoutError: as in `wait`.
        """
        question = evidence.inspection(source, until=until)
        return self._answer(question, name, labels, on_progress, timeout)

    def _answer(
        self,
        question: Question[ReportT],
        name: str | None,
        labels: Labels | None,
        on_progress: OnProgress | None,
        timeout: float | None,
    ) -> ReportT:
        tracker = question.tracker(on_progress)
        job = self._run(question.start(name, labels, tracker))
        self.wait(job.id, timeout=timeout, on_event=tracker.event)
        return self._send(calls.report(job.id, question.report))

    # I/O ----------------------------------------------------------------------------------------------------

    def _run(self, flow: flows.Flow[T]) -> T:
        """Carry out what a flow asks for, one thing after the other; of what fails it hears first."""
        with closing(flow):
            go_on = partial(flow.send, None)
            while True:
                try:
                    wanted = go_on()
                except StopIteration as stop:
                    return cast(T, stop.value)
                try:
                    go_on = partial(flow.send, self._perform(wanted))
                except (OSError, NextrapolateError) as error:
                    go_on = partial(flow.throw, error)

    def _perform(self, wanted: Call[Any] | Download) -> Any:
        return self._fetch(wanted) if isinstance(wanted, Download) else self._send(wanted)

    def _send(self, call: Call[T]) -> T:
        answer: T = Retrying(**self._session.retry_options())(self._send_once, call)
        return answer

    def _send_once(self, call: Call[T]) -> T:
        with self._session.reaching():
            request = self._http.build_request(**self._session.request_options(call, stream=iter))
            response = self._http.send(request)
        return self._session.value(call, response)

    def _fetch(self, download: Download) -> None:
        Retrying(**self._session.retry_options())(self._fetch_once, download)
        download.verify()

    def _fetch_once(self, download: Download) -> None:
        with (
            self._open(method="GET", url=download.path, headers=download.headers()) as response,
            download.open(response) as file,
        ):
            for chunk in response.iter_bytes():
                download.write(file, chunk)

    def _listen(self, listener: Listener) -> Generator[JobEvent]:
        while True:
            try:
                with self._open(**listener.stream_options()) as response:
                    if response.status_code == codes.NO_CONTENT:
                        return  # the last event was heard before
                    response.stream = listener.watched(response.stream)
                    for sse in EventSource(response).iter_sse():
                        if event := listener.heard(sse):
                            yield event
                            if event.state.is_final:
                                return
                if listener.ended(self._send_once(calls.get_job(listener.job_id))):
                    return
                pause = listener.pause_after(None)
            except (ServiceUnreachable, APIError) as error:
                pause = listener.pause_after(error)
            time.sleep(pause)

    @contextmanager
    def _open(self, **options: Any) -> Iterator[httpx.Response]:
        """Give a successful answer, whose body is yet to come."""
        with self._session.reaching(), self._http.stream(**options) as response:
            if not response.is_success:
                response.read()
            self._session.check(response)
            yield response
