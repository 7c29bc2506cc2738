"""A gate before Redis for each process: a proxy on a unix socket of its own, which can fall silent.

What falls silent are the connections that are open: nothing comes through, nothing is closed, as when a cable
is pulled or a firewall forgets. New connections go through.
"""

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

_CHUNK = 1 << 16
_TAKES_WORK = b"BRPOP"


class Gate:
    """One process' way to Redis.

    Attributes:
        url: under which that process finds Redis.
    """

    def __init__(self, redis_url: str, path: Path) -> None:
        url = urlsplit(redis_url)
        self._upstream, self._path = url.path, path
        self.url = f"unix://{url.netloc}{quote(str(path))}"
        self._server: asyncio.Server | None = None
        self._silent: set[int] = set()
        self._open: set[int] = set()
        self._last = 0
        self._silent_since: float | None = None
        self.noticed_after: float | None = None
        """Seconds from falling silent to the process asking for work on a new connection."""

    async def serve(self) -> None:
        """Begin to let connections through."""
        self._server = await asyncio.start_unix_server(self._connected, self._path)

    def close(self) -> None:
        """Let nobody else in."""
        if self._server is not None:
            self._server.close()

    def fall_silent(self) -> bool:
        """Let nothing through any more on the connections that are open; False where there are none."""
        self._silent |= self._open
        self._silent_since, self.noticed_after = time.monotonic(), None
        return bool(self._open)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            redis_reader, redis_writer = await asyncio.open_unix_connection(self._upstream)
            self._last += 1
            number = self._last
            self._open.add(number)
            pumps = (
                asyncio.create_task(self._pump(number, reader, redis_writer, asks=True)),
                asyncio.create_task(self._pump(number, redis_reader, writer, asks=False)),
            )
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            redis_writer.close()
            self._open.discard(number)
        writer.close()

    async def _pump(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asks: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if number in self._silent:
                    continue
                if asks and _TAKES_WORK in data:
                    self._note_work_is_taken()
                writer.write(data)
                await writer.drain()

    def _note_work_is_taken(self) -> None:
        if self._silent_since is not None and self.noticed_after is None:
            self.noticed_after = time.monotonic() - self._silent_since


class Gates:
    """All gates of a deployment, on a thread of their own."""

    def __init__(self) -> None:
        self._gates: list[Gate] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gates", daemon=True)
        self._thread.start()

    def open(self, redis_url: str, path: Path) -> Gate:
        """Open a gate at this path."""
        gate = Gate(redis_url, path)
        asyncio.run_coroutine_threadsafe(gate.serve(), self._loop).result()
        self._gates.append(gate)
        return gate

    def close(self) -> None:
        """Close all of them."""
        asyncio.run_coroutine_threadsafe(self._close_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close_all(self) -> None:
        for gate in self._gates:
            gate.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
