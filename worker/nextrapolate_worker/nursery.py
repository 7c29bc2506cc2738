"""Child processes: a fresh one for each attempt, started ahead of it.

A fresh process, because CUDA cannot follow a fork, because running out of memory must take the child and not
the worker, and because a cancel must really free the device. A warm one, because importing torch takes longer
than a small job: a training run that jumps often should not wait for it.
"""

import queue
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Self

from nextrapolate_worker.messages import Answer, Start, parse_answer

CHILD_COMMAND: tuple[str, ...] = (sys.executable, "-m", "nextrapolate_worker.child")

_GRACE_SECONDS = 10.0


class ChildDied(Exception):
    """The child ended without a result; `code` is its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _EndOfAnswers:
    """Stands in the queue where the child's stdout closed."""


class Child:
    """One child process, waiting for its one `Start`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - a command of our own
            CHILD_COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answers: queue.SimpleQueue[Answer | _EndOfAnswers] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="child-reader", daemon=True)
        self._reader.start()
        self._writer: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def is_alive(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    def start(self, work: Start) -> None:
        """Hand over the work. Nobody waits until it is read: a child that died is told of by `answer`."""
        self._writer = threading.Thread(
            target=self._write, args=(work.line(),), name="child-writer", daemon=True
        )
        self._writer.start()

    def answer(self, timeout: float) -> Answer | None:
        """Wait for the next message; None where none came in `timeout` seconds.

        Raises:
            ChildDied: it ended without a further word.
        """
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(answer, _EndOfAnswers):
            raise ChildDied(self.stop())
        return answer

    def stop(self) -> int:
        """End the process: ask, wait ten seconds, kill. Gives its exit code, negative for a signal."""
        if self.is_alive:
            self._process.terminate()
            try:
                self._process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        self._reader.join()
        if self._writer is not None:
            self._writer.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # what it was still to be told
                self._pipe(pipe).close()
        return code

    def _write(self, line: str) -> None:
        # More than a pipe holds would wait for a child that imports for long, or hangs.
        stdin = self._pipe(self._process.stdin)
        with suppress(BrokenPipeError):  # whoever waits for its answers hears that it died
            stdin.write(line)
            stdin.flush()

    def _read(self) -> None:
        try:
            for line in self._pipe(self._process.stdout):
                self._answers.put(parse_answer(line))
        finally:
            self._answers.put(_EndOfAnswers())

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            raise RuntimeError("the child was started without pipes")
        return pipe


class Nursery:
    """Hands out children, and keeps one warm between jobs.

    A child dies with the thread that started it, since the kernel's parent-death signal follows threads.
    Celery's main thread and the one thread of its pool live as long as the worker does.
    """

    def __init__(self) -> None:
        self._spare: Child | None = None

    def take(self) -> Child:
        """Give a child that nobody has used."""
        child, self._spare = self._spare, None
        return child if child is not None and child.is_alive else Child()

    def prepare(self) -> None:
        """Start the next child, so that the next job finds it warm."""
        if self._spare is None or not self._spare.is_alive:
            self._spare = Child()

    def close(self) -> None:
        """End the spare child."""
        if self._spare is not None:
            self._spare.stop()
            self._spare = None
