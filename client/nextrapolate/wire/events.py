"""Reading a job's events to their end, over as many connections as it takes."""

import math
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
from httpx_sse import ServerSentEvent
from pydantic import ValidationError

from nextrapolate.errors import ServiceUnreachable, WaitTimeoutError
from nextrapolate.schemas import Job, JobEvent
from nextrapolate.wire import retries
from nextrapolate.wire.calls import events_path
from nextrapolate.wire.session import Session

QUIET = 30.0
"""Seconds of silence that mark a dead connection: twice the interval of the service's keep-alive comments."""

PROMPT = 5.0
"""Seconds within which a server that is well begins to answer."""


class _OpenAgain(httpx.ReadTimeout):
    """Bytes come, but the connection is allowed to be silent for longer than the rest of the wait."""


class Listener:
    """Where a reader stands: what it has heard, how long it may go on, how long its server has been gone.

    A client loops: open a stream with `stream_options`, put `watched` around its bytes, pass what it says to
    `heard`; when it breaks, sleep for `pause_after` and begin again. The service goes on after the last event
    that was heard, so that nothing is missed and nothing comes twice.
    """

    def __init__(
        self, session: Session, job_id: str, *, after: str | None = None, timeout: float | None = None
    ) -> None:
        self.job_id = job_id
        self._session = session
        self._last_id = after
        self._timeout = timeout
        self._started = time.monotonic()
        self._read_timeout = QUIET
        self._opened = False
        self._alone_since: float | None = None
        self._breaks = 0
        self._job_was_final = False

    def stream_options(self) -> dict[str, Any]:
        """Arguments of httpx's `stream`.

        Raises:
            WaitTimeoutError: the caller's time is up.
        """
        remaining = self._remaining()
        if self._timeout is not None and remaining <= 0:
            raise WaitTimeoutError(self.job_id, self._timeout)
        self._read_timeout = min(QUIET, remaining)
        self._opened = False
        connect = min(self._session.timeout, remaining)
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        return {
            "method": "GET",
            "url": events_path(self.job_id),
            "headers": headers,
            "timeout": httpx.Timeout(connect, read=self._read_timeout),
        }

    def watched(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> "_Watched":
        """Pass on the same bytes, taking note that they come."""
        self._opened = True
        return _Watched(stream, self)

    def alive(self) -> None:
        """Note that bytes have come, were they only a keep-alive comment.

        Raises:
            _OpenAgain: silence could outlast the caller's timeout: open again, with a shorter one.
        """
        self._alone_since = None
        self._breaks = 0
        if self._remaining() < self._read_timeout:
            raise _OpenAgain("the rest of the wait is shorter than this connection may be silent")

    def heard(self, sse: ServerSentEvent) -> JobEvent | None:
        """Read the event, or None for what carries none, or one that only later clients know."""
        if not sse.data:
            return None
        try:
            event = JobEvent.model_validate_json(sse.data, extra="ignore")
        except ValidationError:
            self._last_id = sse.id or self._last_id
            return None
        self._last_id = sse.id or event.id
        return event

    def ended(self, job: Job) -> bool:
        """Tell whether a stream that ended without a last event has said all; `job` was read after that.

        The service may have closed it for reasons of its own, just before the last event: only a stream that
        was opened after the job's end is complete.
        """
        exhausted, self._job_was_final = self._job_was_final, job.state.is_final
        return exhausted

    def pause_after(self, error: Exception | None) -> float:
        """Tell how many seconds to sleep after an error, or after a stream that simply ended (None).

        Raises:
            ServiceUnreachable: the server was gone for longer than the client's patience, or never there.
            APIError: the service refuses, and another try will not change that.
        """
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        alone = now - self._alone_since
        if error is not None and not self._cut_short(error):
            if not (self._session.reached and retries.may_pass(error)):
                raise error
            if alone > self._session.patience:
                raise ServiceUnreachable(
                    f"no nextrapolate server has answered at {self._session.server.url} for {alone:.0f} s; "
                    f"job {self.job_id} is not lost: `nextrapolate jobs watch {self.job_id}` follows it "
                    "once the server is back"
                ) from error
            self._session.away(error, self._waiting_for())
        self._breaks += 1
        return max(0.0, min(retries.pause_after(self._breaks, error), self._remaining()))

    def _cut_short(self, error: Exception) -> bool:
        """Tell the end of the caller's time, for which the server had too little of it, from an outage."""
        cause = error.__cause__
        needed = QUIET if self._opened else PROMPT
        late = isinstance(cause, httpx.TimeoutException) and self._read_timeout < needed
        return late or isinstance(cause, _OpenAgain)

    def _waiting_for(self) -> str:
        longest = min(self._session.patience, self._remaining())
        if longest <= 0:
            return f"job {self.job_id} is not lost, but this wait for it has ended"
        limit = f" for up to {math.ceil(longest)} s" if math.isfinite(longest) else ""
        return f"job {self.job_id} is not lost; waiting for the server{limit}"

    def _remaining(self) -> float:
        if self._timeout is None:
            return float("inf")
        return self._started + self._timeout - time.monotonic()


class _Watched(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A stream that tells its listener of every chunk.

    Keep-alive comments make no event, and yet a wait must be able to end while nothing else comes.
    """

    def __init__(self, stream: Any, listener: Listener) -> None:
        self._stream = stream
        self._listener = listener

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            yield chunk
            self._listener.alive()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk
            self._listener.alive()

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()
