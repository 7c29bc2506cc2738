"""HTTP with bounds on heads, and on a body's silence. By itself uvicorn takes any length, for any time.

Without them one caller who has no key could fill the memory with a header that never ends, and hold
connections with requests that never begin, or never go on.
"""

from asyncio import Transport
from asyncio.events import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 << 10
"""Of what is no body: a request's line and headers, or trailers; checked as they arrive, a read at a time."""
HEAD_SECONDS = 30.0
"""How long they may take to arrive."""
BODY_SILENCE_SECONDS = 30.0
"""How long a body may stop: less long than room is held for an upload of which nothing comes."""


class BoundedHttp(HttpToolsProtocol):
    """Answers 400 to what is too long, and closes a connection on which nothing has arrived in time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bare_bytes = 0  # since there was anything of a body, or its end
        self._read_body = False
        self._within = False  # a request whose end has not been read
        self._timer: TimerHandle | None = None
        self._heard = 0.0  # when anything last came of the body that is arriving

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Expect a head."""
        super().connection_made(transport)
        self._expect_head()

    def on_message_begin(self) -> None:
        """Expect a head, on a connection that is used again, too."""
        self._within = True
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Expect a body, or its end."""
        self._stop_timer()
        super().on_headers_complete()
        self._expect_body()

    def on_body(self, body: bytes) -> None:
        """Take any length of it, as long as it goes on; once there is an answer nobody waits for the rest."""
        self._read_body = True
        if not (self.cycle is not None and self.cycle.response_complete):
            self._heard = self.loop.time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count again."""
        self._stop_timer()
        self._within, self._read_body = False, True
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Count what was read without anything of a body in it."""
        self._read_body = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._bare_bytes = 0 if self._read_body else self._bare_bytes + len(data)
        if self._bare_bytes > MOST_HEAD_BYTES:
            self._stop_timer()
            self.send_400_response(f"The request's head or trailer is longer than {MOST_HEAD_BYTES} bytes.")
        elif self._is_idle():  # a line end alone: uvicorn waits no more, and nothing has begun
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_timer()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        """Whether nothing is on its way in or out, and nobody waits for that to change."""
        answering = self.cycle is not None and not self.cycle.response_complete
        waiting = self._timer is not None or self.timeout_keep_alive_task is not None
        return not (self._within or answering or waiting)

    def _expect_head(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _expect_body(self) -> None:
        self._heard = self.loop.time()
        self._timer = self.loop.call_later(BODY_SILENCE_SECONDS, self._see_whether_it_goes_on)

    def _see_whether_it_goes_on(self) -> None:
        """Look again when it could have been silent for too long: a timer is not set anew for each piece."""
        if self.flow.read_paused:  # it is not the caller who is silent
            self._heard = self.loop.time()
        left = self._heard + BODY_SILENCE_SECONDS - self.loop.time()
        if left > 0:
            self._timer = self.loop.call_later(left, self._see_whether_it_goes_on)
        else:
            self._give_up()

    def _give_up(self) -> None:
        self._timer = None
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
