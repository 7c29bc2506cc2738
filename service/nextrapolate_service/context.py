"""What every request carries: an id that leads to its lines in the log, and bounds on its body."""

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nextrapolate_store.logs import about, only_about

_log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-Id"
MAX_JSON_BYTES = 1 << 20
MAX_JSON_SECONDS = 60.0

_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_JOB = re.compile(r"/jobs/([0-9A-Z]{26})")
_PROBES = {"/livez", "/readyz", "/metrics"}


class RequestId:
    """Takes over the caller's X-Request-Id, or makes one; the answer and all lines of the log carry it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app with `request.state.request_id` set, and log what came of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _ACCEPTABLE_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started, status, made = time.monotonic(), 0, ""

        async def send_with_id(message: Message) -> None:
            nonlocal status, made
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                status, made = message["status"], headers.get("Location", "")
            await send(message)

        only_about(request_id=request_id)  # its task's last line, uvicorn's of a mistake, comes after this
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            _note(scope, status, made, time.monotonic() - started)


def _note(scope: Scope, status: int, made: str, seconds: float) -> None:
    """Log a request as its caller wrote it: what is decoded could hold the end of the line."""
    path = scope["raw_path"].decode("ascii", "backslashreplace")
    job = _JOB.match(path) or _JOB.match(made)
    with about(**({"job_id": job[1]} if job else {})):
        level = logging.DEBUG if path in _PROBES else logging.INFO
        fields = {"status": status, "seconds": round(seconds, 4)}
        _log.log(level, "%s %s %d", scope["method"], path, status, extra=fields)


class JsonBodyLimit:
    """Bounds JSON bodies and forms, in bytes and in time.

    Uploads, which are PUT, bound themselves by what is uploaded. FastAPI's own max_body_size answers in
    plain text where the length is announced. This one raises the only exception that FastAPI lets pass while
    it reads a body, and so becomes a problem like any other.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; reading beyond the limits raises a 413 or a 408 in it."""
        if scope["type"] != "http" or scope["method"] == "PUT":
            await self._app(scope, receive, send)
            return
        arrived, is_whole = 0, False
        deadline = asyncio.get_running_loop().time() + MAX_JSON_SECONDS

        async def receive_bounded() -> Message:
            nonlocal arrived, is_whole
            if is_whole:  # then it tells of the caller's going, for however long the answer takes
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, headers={"Connection": "close"}) from None
            arrived += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if arrived > MAX_JSON_BYTES:
                raise HTTPException(413)
            return message

        await self._app(scope, receive_bounded, send)
