"""Child processes that belong together: started in stages, restarted when they die, stopped in reverse.

Whoever ends the supervisor ends them all: asked to stop, it stops them; killed outright, their leashes do.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nextrapolate_service.server.errors import PartFailedError
from nextrapolate_service.server.leash import leashed

_ASK_AGAIN_SECONDS = 0.05
_ASK_SELDOM_SECONDS = 1.0
_SILENT_SECONDS = 15.0
"""How long a part may take, as it does on a busy machine, before a person is told what it is waited for."""
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 15.0
_STEADY_SECONDS = 30.0

Tell = Callable[[str], None]
"""Takes a sentence for the person at the terminal."""


@dataclass(frozen=True)
class Part:
    """One child process.

    Attributes:
        name: for people.
        command: program and arguments.
        log: file to which its output is appended.
        obstacle: tells what keeps the part from being used, or None; it may block for about a second.
        environment: what it is told beside the supervisor's own environment.
        inherits: file descriptors it keeps open.
        grace_seconds: how long it may take to end after SIGTERM, before SIGKILL.
    """

    name: str
    command: Sequence[str]
    log: Path
    obstacle: Callable[[], str | None]
    environment: Mapping[str, str] = field(default_factory=dict)
    inherits: tuple[int, ...] = ()
    grace_seconds: float = 10.0


async def supervise(stages: Sequence[Sequence[Part]], tell: Tell, on_ready: Callable[[], None]) -> None:
    """Run the parts until SIGINT or SIGTERM; a second one does not wait for anybody's grace.

    The parts of a stage are started together, once all of the stage before are ready.

    Raises:
        PartFailedError: one of them ended before it was ready; the others have been stopped.
    """
    stop, at_once = asyncio.Event(), asyncio.Event()
    _listen(stop, at_once)
    children = [[_Child(part, tell) for part in stage] for stage in stages]
    running = asyncio.create_task(_run(children, on_ready))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        tell("stopping; a second Ctrl-C stops at once")
    finally:
        await _cancel(running, stopping)
        for stage in reversed(children):
            await asyncio.gather(*(child.stop(at_once) for child in stage))


async def _run(children: Sequence[Sequence["_Child"]], on_ready: Callable[[], None]) -> None:
    keepers: list[asyncio.Task[None]] = []
    try:
        for stage in children:
            await asyncio.gather(*(child.start() for child in stage))
            keepers += [asyncio.create_task(child.keep()) for child in stage]
        on_ready()
        await asyncio.gather(*keepers)
    finally:
        await _cancel(*keepers)


class _Child:
    """A part, and the process that is running it just now."""

    def __init__(self, part: Part, tell: Tell) -> None:
        self._part = part
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    async def start(self) -> None:
        """Start the process, and wait until it is ready: however long that takes, but not without a word.

        Raises:
            PartFailedError: it ended first.
        """
        process = await self._spawn()
        started = time.monotonic()
        told: set[str] = set()
        while (obstacle := await asyncio.to_thread(self._part.obstacle)) is not None:
            if process.returncode is not None:
                raise PartFailedError(
                    f"{self._part.name} {_how(process.returncode)}: see {self._part.log}{self._last_words()}"
                )
            if obstacle not in told and time.monotonic() - started > _SILENT_SECONDS:
                told.add(obstacle)
                self._tell(
                    f"{self._part.name} is not ready yet: {obstacle}; waiting for it, see {self._part.log}"
                )
            await asyncio.sleep(_ASK_SELDOM_SECONDS if told else _ASK_AGAIN_SECONDS)

    async def keep(self) -> None:
        """Start the process again whenever it ends, after pauses that double while it keeps dying young."""
        pause = _FIRST_PAUSE
        while True:
            process = self._process or await self._spawn()
            started = time.monotonic()
            code = await process.wait()
            if time.monotonic() - started > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            self._tell(
                f"{self._part.name} {_how(code)}, it is restarted in {pause:g} s: see {self._part.log}"
            )
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
            self._process = None

    def _last_words(self) -> str:
        with self._part.log.open("rb") as log:
            log.seek(self._log_start)
            said = log.read().decode(errors="replace").strip()
        return f", which ends: {said.splitlines()[-1]}" if said else ""

    async def stop(self, at_once: asyncio.Event) -> None:
        """Ask it to end; kill it when its grace is over, or when `at_once` is set."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        _send(process, signal.SIGTERM)
        ended = asyncio.create_task(process.wait())
        hurry = asyncio.create_task(at_once.wait())
        grace = self._part.grace_seconds
        await asyncio.wait((ended, hurry), timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        _send(process, signal.SIGKILL)
        await ended
        await _cancel(hurry)

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self._part.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *leashed(self._part.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._part.environment},
                pass_fds=self._part.inherits,
                process_group=0,  # Ctrl-C is for the supervisor, which stops its parts in order
            )
        return self._process


def _listen(stop: asyncio.Event, at_once: asyncio.Event) -> None:
    def on_signal() -> None:
        (at_once if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended
        process.send_signal(number)


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
