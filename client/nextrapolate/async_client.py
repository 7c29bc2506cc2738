"""The asynchronous client: `NExtClient`, awaited. It needs asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

import httpx
from httpx import codes
from httpx_sse import EventSource
from tenacity import AsyncRetrying

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
from nextrapolate.wire.transfers import Download, Upload, in_threads

T = TypeVar("T")


class AsyncNExtClient:
    """`NExtClient` for coroutines: the same arguments, methods, results and errors.

    Uploads and downloads are read, hashed and written in threads.
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
        self._http = httpx.AsyncClient(**self._session.http_options())

    @property
    def url(self) -> str:
        """The service's address."""
        return self._session.server.url

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # Methods and series -------------------------------------------------------------------------------------

    async def methods(self) -> list[MethodInfo]:
        """As `NExtClient.methods`."""
        return (await self._send(calls.list_methods())).methods

    async def create_series(
        self,
        name: str,
        *,
        base_model: str | None = None,
        lora_config: dict[str, Any] | None = None,
        labels: Labels | None = None,
    ) -> Series:
        """As `NExtClient.create_series`."""
        call = calls.create_series(name, base_model=base_model, lora_config=lora_config, labels=labels)
        return await self._send(call)

    async def get_series(self, series_id: str) -> Series:
        """As `NExtClient.get_series`."""
        return await self._send(calls.get_series(series_id))

    async def delete_series(self, series_id: str) -> None:
        """As `NExtClient.delete_series`."""
        await self._send(calls.delete_series(series_id))

    async def list_series(self, *, limit: int = 100) -> list[Series]:
        """As `NExtClient.list_series`."""
        return await self._run(flows.newest(calls.list_series, limit))

    async def put_file(self, series_id: str, step: int, name: CheckpointFile, data: bytes | Path) -> FileInfo:
        """As `NExtClient.put_file`."""
        files = await self._run(flows.upload_files(series_id, step, {name: Upload(data)}))
        return files[name]

    async def put_checkpoint(
        self, series_id: str, step: int, folder: str | Path
    ) -> dict[CheckpointFile, FileInfo]:
        """As `NExtClient.put_checkpoint`."""
        checkpoint = LocalCheckpoint(step, adapter_folder(Path(folder)))
        return await self._run(flows.upload_checkpoint(series_id, checkpoint))

    async def announce(
        self, series_id: str, step: int, digests: Mapping[CheckpointFile, str]
    ) -> list[CheckpointFile]:
        """As `NExtClient.announce`."""
        return (await self._send(calls.announce_digests(series_id, step, digests))).missing

    async def record_jump(self, series_id: str, step: int, job_id: str) -> Series:
        """As `NExtClient.record_jump`."""
        return await self._send(calls.record_jump(series_id, step, job_id))

    # Jobs ---------------------------------------------------------------------------------------------------

    async def submit(self, request: JobRequest, *, idempotency_key: str | None = None) -> Job:
        """As `NExtClient.submit`."""
        return await self._send(calls.submit(request, idempotency_key))

    async def get_job(self, job_id: str) -> Job:
        """As `NExtClient.get_job`."""
        return await self._send(calls.get_job(job_id))

    async def list_jobs(self, *, state: JobState | None = None, limit: int = 100) -> list[Job]:
        """As `NExtClient.list_jobs`."""
        return await self._run(flows.newest(lambda size, cursor: calls.list_jobs(state, size, cursor), limit))

    async def cancel(self, job_id: str) -> Job:
        """As `NExtClient.cancel`."""
        return await self._send(calls.cancel(job_id))

    def events(self, job_id: str, *, after: str | None = None) -> AsyncIterator[JobEvent]:
        """As `NExtClient.events`."""
        return self._listen(Listener(self._session, job_id, after=after))

    async def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the job's, with an error that says the job goes on
        on_event: Callable[[JobEvent], None] | None = None,
    ) -> Job:
        """As `NExtClient.wait`."""
        async with aclosing(self._listen(Listener(self._session, job_id, timeout=timeout))) as events:
            async for event in events:
                if on_event:
                    on_event(event)
        return flows.succeeded(await self.get_job(job_id))

    async def download(self, job_id: str, out: str | Path, *, files: Collection[str] | None = None) -> Path:
        """As `NExtClient.download`."""
        tracker = Tracker(None, uploads=False, downloads=True)
        return await self._run(flows.download_result(job_id, Path(out), tracker, files))

    @overload
    async def report(self, job_id: str) -> Report: ...

    @overload
    async def report(self, job_id: str, kind: type[ReportT]) -> ReportT: ...

    async def report(self, job_id: str, kind: type[Any] = Report) -> Any:
        """As `NExtClient.report`."""
        return await self._run(flows.report_of(job_id, kind))

    async def extrapolate(
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
        timeout: float | None = None,  # noqa: ASYNC109 - as in `wait`
        **parameters: Any,
    ) -> Extrapolation:
        """As `NExtClient.extrapolate`."""
        chosen = make_method(method, **parameters)
        question = question_for(source, method=chosen, until=until, output=output, gate=gate)
        folder = folder_for(question, chosen, out)
        tracker = question.tracker(on_progress)
        job = await self._run(question.start(name, labels, tracker))
        folder = folder or folder_here(job, chosen)
        job = await self.wait(job.id, timeout=timeout, on_event=tracker.event)
        path = await self._run(flows.download_result(job.id, folder, tracker))
        return Extrapolation(job, path, await self._send(calls.report(job.id, Report)))

    async def backtest(
        self,
        source: Source,
        *,
        at: int,
        horizon_steps: int = HORIZON_STEPS,
        methods: Sequence[str | Method] | None = None,
        name: str | None = None,
        labels: Labels | None = None,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as in `wait`
    ) -> Comparison:
        """As `NExtClient.backtest`."""
        question = evidence.backtest(source, at=at, horizon_steps=horizon_steps, methods=methods)
        return await self._answer(question, name, labels, on_progress, timeout)

    async def inspect(
        self,
        source: Source,
        *,
        until: int | None = None,
        name: str | None = None,
        labels: Labels | None = None,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as in `wait`
    ) -> Inspection:
        """As `NExtClient.inspect`."""
        question = evidence.inspection(source, until=until)
        return await self._answer(question, name, labels, on_progress, timeout)

    async def _answer(
        self,
        question: Question[ReportT],
        name: str | None,
        labels: Labels | None,
        on_progress: OnProgress | None,
        timeout: float | None,  # noqa: ASYNC109 - as in `wait`
    ) -> ReportT:
        tracker = question.tracker(on_progress)
        job = await self._run(question.start(name, labels, tracker))
        await self.wait(job.id, timeout=timeout, on_event=tracker.event)
        return await self._send(calls.report(job.id, question.report))

    # I/O ----------------------------------------------------------------------------------------------------

    async def _run(self, flow: flows.Flow[T]) -> T:
        """Carry out what a flow asks for, one thing after the other; of what fails it hears first."""
        with closing(flow):
            go_on = partial(flow.send, None)
            while True:
                try:
                    wanted = go_on()
                except StopIteration as stop:
                    return cast(T, stop.value)
                try:
                    go_on = partial(flow.send, await self._perform(wanted))
                except (OSError, NextrapolateError) as error:
                    go_on = partial(flow.throw, error)

    async def _perform(self, wanted: Call[Any] | Download) -> Any:
        return await (self._fetch(wanted) if isinstance(wanted, Download) else self._send(wanted))

    async def _send(self, call: Call[T]) -> T:
        return await AsyncRetrying(**self._session.retry_options())(self._send_once, call)

    async def _send_once(self, call: Call[T]) -> T:
        with self._session.reaching():
            options = await asyncio.to_thread(self._session.request_options, call, stream=in_threads)
            response = await self._http.send(self._http.build_request(**options))
        return self._session.value(call, response)

    async def _fetch(self, download: Download) -> None:
        await AsyncRetrying(**self._session.retry_options())(self._fetch_once, download)
        await asyncio.to_thread(download.verify)

    async def _fetch_once(self, download: Download) -> None:
        async with self._open(method="GET", url=download.path, headers=download.headers()) as response:
            with download.open(response) as file:
                async for chunk in response.aiter_bytes():
                    await asyncio.to_thread(download.write, file, chunk)

    async def _listen(self, listener: Listener) -> AsyncGenerator[JobEvent]:
        while True:
            try:
                async with self._open(**listener.stream_options()) as response:
                    if response.status_code == codes.NO_CONTENT:
                        return  # the last event was heard before
                    response.stream = listener.watched(response.stream)
                    async for sse in EventSource(response).aiter_sse():
                        if event := listener.heard(sse):
                            yield event
                            if event.state.is_final:
                                return
                if listener.ended(await self._send_once(calls.get_job(listener.job_id))):
                    return
                pause = listener.pause_after(None)
            except (ServiceUnreachable, APIError) as error:
                pause = listener.pause_after(error)
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _open(self, **options: Any) -> AsyncIterator[httpx.Response]:
        """Give a successful answer, whose body is yet to come."""
        with self._session.reaching():
            async with self._http.stream(**options) as response:
                if not response.is_success:
                    await response.aread()
                self._session.check(response)
                yield response
