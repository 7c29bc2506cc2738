"""HTTP with a bound on what comes before a body. By itself uvicorn takes heads of any length, for any time.

Without it one caller who has no key could fill the memory with a header that never ends, and hold connections
with requests that never begin.
"""

from asyncio import Transport
from asyncio.events import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 << 10
"""Of a request's line and headers; checked as they arrive, so that a little more may have come."""
HEAD_SECONDS = 30.0
"""How long they may take to arrive."""


class BoundedHttp(HttpToolsProtocol):
    """Answers 400 to a head that is too long, and closes a connection on which none has arrived in time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_bytes = 0
        self._head_timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Expect a head."""
        super().connection_made(transport)
        self._expect_head()

    def on_message_begin(self) -> None:
        """Expect a head, on a connection that is used again, too."""
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Take whatever comes now as a body."""
        self._stop_timer()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete."""
        super().data_received(data)
        if self._head_timer is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._stop_timer()
                self.send_400_response(f"The request's head is longer than {MOST_HEAD_BYTES} bytes.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_timer()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._stop_timer()
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._head_timer = None
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
