"""One client's standing with one server: how it is addressed, whether it was reached, what is tried again."""

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel
from pydantic_core import to_json
from tenacity import RetryCallState

from nextrapolate.errors import APIError, ServerError, ServiceUnreachable
from nextrapolate.schemas import beyond_defaults
from nextrapolate.wire import retries
from nextrapolate.wire.answers import refusal
from nextrapolate.wire.calls import Call
from nextrapolate.wire.servers import Server
from nextrapolate.wire.transfers import Upload

logger = logging.getLogger("nextrapolate")

T = TypeVar("T")
Content = Iterable[bytes] | AsyncIterator[bytes]


class Session:
    """Everything of a client but its sockets.

    Attributes:
        server: whom it talks to.
        reached: whether the server has ever answered. One that has is restarting when it is gone; one that
            has not is a wrong address, and waiting for it helps nobody.
        timeout: seconds that a connection may take, or be silent.
        patience: seconds that a wait goes on while a server that was reached before is gone.
    """

    def __init__(self, server: Server, timeout: float, patience: float) -> None:
        self.server = server
        self.timeout = timeout
        self.patience = patience
        self.reached = False
        self._away_since: float | None = None

    def http_options(self) -> dict[str, Any]:
        """Arguments of `httpx.Client` and `httpx.AsyncClient`."""
        headers = {"User-Agent": f"nextrapolate/{version('nextrapolate')}", "Accept-Encoding": "identity"}
        if self.server.api_key:
            headers["Authorization"] = f"Bearer {self.server.api_key}"
        # A proxy of the environment is for the world outside, never for an embedded server.
        direct = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}
        return {"base_url": self.server.url, "headers": headers, "timeout": self.timeout, "mounts": direct}

    def retry_options(self) -> dict[str, Any]:
        """Arguments of tenacity's `Retrying` and `AsyncRetrying`."""
        return {
            "retry": lambda state: state.outcome.failed and retries.may_pass(state.outcome.exception()),
            "wait": lambda state: retries.pause_after(state.attempt_number, state.outcome.exception()),
            "stop": lambda state: state.attempt_number >= self._attempts,
            "before_sleep": self._before_another_try,
            "reraise": True,
        }

    @property
    def _attempts(self) -> int:
        return retries.ATTEMPTS if self.reached else retries.ATTEMPTS_AT_A_STRANGER

    def _before_another_try(self, state: RetryCallState) -> None:
        assert state.outcome is not None  # noqa: S101 (an attempt has just failed)
        left = self._attempts - state.attempt_number
        self.away(state.outcome.exception(), f"trying {left} more times")

    def away(self, error: BaseException | None, meanwhile: str) -> None:
        """Warn, once until it is back, that the server is away and what is done: else a wait is silence.

        Nothing is said of one that asks to slow down or that the Hub does not answer, or of a wrong address
        that is given up within seconds.
        """
        if self._away_since is not None or not isinstance(error, ServiceUnreachable | ServerError):
            return
        if isinstance(error, ServerError) and error.problem.status == httpx.codes.FAILED_DEPENDENCY:
            return
        if self.reached or isinstance(error.__cause__, httpx.TimeoutException):
            self._away_since = time.monotonic()
            logger.warning("%s; %s", error, meanwhile)

    def _back(self) -> None:
        since, self._away_since = self._away_since, None  # in one go: several threads may share a client
        if since is not None:
            gone = time.monotonic() - since
            logger.warning("%s answers again, after %.0f s", self.server.url, gone)

    def request_options(
        self, call: Call[Any], stream: Callable[[Iterator[bytes]], Content]
    ) -> dict[str, Any]:
        """Arguments of httpx's `build_request`. Reads an upload for its digest, the first time."""
        options: dict[str, Any] = {"method": call.method, "url": call.path, "params": call.params}
        headers = dict(call.headers)
        if call.lends_hub_token and self.server.hub_token:
            headers["X-Hub-Token"] = self.server.hub_token
        match call.body() if callable(call.body) else call.body:
            case Upload() as upload:
                headers |= upload.headers()
                options["content"] = stream(upload.chunks())
            case BaseModel() as model:
                headers["Content-Type"] = "application/json"
                options["content"] = to_json(beyond_defaults(model))
        return options | {"headers": headers}

    def value(self, call: Call[T], response: httpx.Response) -> T:
        """Read what a call's answer says; `APIError` where the service refused."""
        try:
            self.check(response)
        except APIError as error:
            if isinstance(call.body, Upload) and isinstance(call.body.source, Path):
                error.add_note(f"(while uploading {call.body.source})")
            raise
        return call.read(response)

    def check(self, response: httpx.Response) -> None:
        """Raise the error that an answer stands for, if any. The body must have been read if it is one."""
        self.reached = True
        error = refusal(response)
        if not (error and retries.may_pass(error)):
            self._back()
        if error:
            raise error

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turn what httpx says about the network into `ServiceUnreachable`."""
        try:
            yield
        except httpx.TransportError as error:
            said = f"no nextrapolate server answers at {self.server.url} ({_plain(error)})"
            if not self.reached:
                said += "; start one with `nextrapolate-server`, or give its address"
                said += " (url, --url, NEXTRAPOLATE_URL)"
            raise ServiceUnreachable(said) from error


def _plain(error: httpx.TransportError) -> str:
    """Say what httpx says, or the name of an error whose text it leaves empty."""
    return str(error) or type(error).__name__
