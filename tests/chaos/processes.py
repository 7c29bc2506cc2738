"""Processes of a deployment: killed by faults, and started again by a keeper, as a supervisor does."""

import math
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from nextrapolate_service.server.leash import leashed

_LOOK_SECONDS = 0.05
_PAUSE_SECONDS = (0.25, 1.0)
_GRACE_SECONDS = 20


@dataclass
class Process:
    """One process of the deployment, whichever number it has just now.

    Attributes:
        name: for the log.
        command: program and arguments.
        environment: beside this process' own.
        log: file to which its output is appended.
        inherits: file descriptors it keeps open.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    inherits: tuple[int, ...] = ()
    _running: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """Its number; None while it is down."""
        running = self._running
        return running.pid if running is not None and running.poll() is None else None

    def start(self) -> None:
        """Start it, on a leash: it dies with the thread that starts it."""
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                leashed(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                pass_fds=self.inherits,
            )

    def send(self, number: signal.Signals) -> bool:
        """Send it a signal; False where it is down."""
        pid = self.pid
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        return True

    def children(self) -> list[psutil.Process]:
        """Find its child processes."""
        with suppress(psutil.NoSuchProcess):
            if self.pid is not None:
                return psutil.Process(self.pid).children()
        return []

    def stop(self) -> None:
        """Ask it to end, and kill it where it does not."""
        if self._running is None:
            return
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            self._running.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()


class Keeper:
    """Starts processes, and again after a pause whenever they end.

    On a thread of its own, which lives as long as they do: their leashes follow the thread that starts them.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._processes: list[Process] = []
        self._due: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_for_ever, name="keeper", daemon=True)
        self._thread.start()

    def keep(self, process: Process) -> None:
        """Start a process, and look after it from now on."""
        self._due[process.name] = time.monotonic()
        self._processes.append(process)

    def stop(self) -> None:
        """End all of them, the last one first."""
        for process in reversed(self._processes):
            self._due[process.name] = math.inf
            process.stop()
        self._stopping.set()
        self._thread.join()

    def _look_for_ever(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            for process in list(self._processes):
                if process.pid is None:
                    self._start_when_due(process)

    def _start_when_due(self, process: Process) -> None:
        now = time.monotonic()
        if now >= self._due.setdefault(process.name, now + self._chance.uniform(*_PAUSE_SECONDS)):
            del self._due[process.name]
            process.start()
