"""The audit log: who did what, when, and how it ended. One JSON object a line, one file a day (UTC) and host.

    {data_dir}/audit/2026-11-21.host.jsonl

What is noted: every request that could change something, every download of a result, and every refusal for
want of a scope. Looking at jobs is not, or the log would be full of pages that poll. Of the request there are
its operation and the ids in its path, and nothing else into which its sender could have put a secret.
"""

import asyncio
import errno
import json
import logging
import os
import re
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nextrapolate_service.errors import MissingScopeError, RateLimitedError
from nextrapolate_store.deployment import require_mark
from nextrapolate_store.keys import KeyRecord

_log = logging.getLogger(__name__)

_DOWNLOADS = "results"
"""Tag of the operations that give results away."""
_FILES = "20[0-9][0-9]-[01][0-9]-[0-3][0-9].*.jsonl"
_LONGEST_ID = 128
_SECRET = re.compile(r"(?<=nx_)\w+")


class AuditLog:
    """Appends lines; safe to use from several processes at once, and nothing is kept open between lines."""

    def __init__(self, data_dir: Path, keep_days: int) -> None:
        self._data_dir, self._folder = data_dir, data_dir / "audit"
        self._keep = timedelta(days=keep_days)
        self._host = socket.gethostname()

    def note(self, **what: Any) -> None:
        """Append a line: the time, and what is given. What cannot be written goes to the service's log."""
        now = datetime.now(UTC)
        line = json.dumps({"at": now.isoformat(timespec="milliseconds"), **what}) + "\n"
        path = self._folder / f"{now:%Y-%m-%d}.{self._host}.jsonl"
        try:
            require_mark(self._data_dir)
            if not path.exists():
                self._folder.mkdir(mode=0o700, exist_ok=True)
                self._forget(f"{now:%Y-%m-%d}")
            # One write of a whole line at the end of the file: lines of other processes do not mix with it.
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                whole = os.write(descriptor, line.encode()) == len(line.encode())
            finally:
                os.close(descriptor)
            if not whole:
                raise OSError(errno.ENOSPC, "only a part of the line was written")
        except OSError as error:
            _log.error("the audit log cannot be written (%s): %s", error.strerror, line.strip())

    def _forget(self, today: str) -> None:
        """Remove what was too old by the last file before today's: a clock that jumped removes nothing."""
        files = [path for path in self._folder.glob(_FILES) if path.name < today]
        last = max((path.name[: len(today)] for path in files), default=today)
        oldest = f"{datetime.fromisoformat(last) - self._keep:%Y-%m-%d}"
        for path in files:
            if path.name < oldest:
                path.unlink(missing_ok=True)


class Audit:
    """Notes requests once they have been answered."""

    def __init__(self, app: ASGIApp, log: AuditLog) -> None:
        self._app = app
        self._log = log
        self._writer = ThreadPoolExecutor(1, "audit")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, and note what came of it; a request whose sender is unknown is not noted."""
        answer: dict[str, Any] = {"status": None, "made": None}

        async def send_and_see(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
                answer["made"] = Headers(raw=message["headers"]).get("Location")
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        finally:
            state = scope.get("state", {})
            if "key" in state and _is_worth_noting(scope, state.get("problem")):
                what = {**_who(scope, state["key"]), **_what(scope), **answer, **_why(state)}
                # In a thread of its own, as the disk may be slow; to its end, whoever gives up the request.
                noting = asyncio.get_running_loop().run_in_executor(
                    self._writer, partial(self._log.note, **what)
                )
                await asyncio.shield(noting)


def _is_worth_noting(scope: Scope, problem: str | None) -> bool:
    if problem == RateLimitedError.code:
        return False
    changes = scope["method"] not in ("GET", "HEAD")
    return changes or problem == MissingScopeError.code or _DOWNLOADS in scope["route"].tags


def _who(scope: Scope, key: KeyRecord) -> dict[str, Any]:
    address = scope["client"][0] if scope.get("client") else None
    return {"key": key.id, "tenant": key.tenant, "address": address}


def _what(scope: Scope) -> dict[str, Any]:
    ids = {name: _harmless(str(value)) for name, value in scope["path_params"].items()}
    return {"did": scope["route"].name, "ids": ids}


def _why(state: Mapping[str, Any]) -> dict[str, Any]:
    return {"problem": state.get("problem"), "request_id": _harmless(state["request_id"])}


def _harmless(text: str) -> str:
    """Cut short what callers may choose, and the secret out of a key that one of them put there."""
    return _SECRET.sub("...", text)[:_LONGEST_ID]
