"""The command lines of the parts that are ours, as the embedded server and a deployment both run them."""

import socket
import sys

from nextrapolate_store.queue import QUEUE


def api_command(*, host: str, port: int) -> tuple[str, ...]:
    """The API on an address of its own."""
    return (*_API, "--host", host, "--port", str(port))


def api_command_on(listener: socket.socket) -> tuple[str, ...]:
    """The API on a socket that listens already, and that the process inherits."""
    return (*_API, "--fd", str(listener.fileno()))


def worker_command(node: str) -> tuple[str, ...]:
    """A worker that runs one job at a time, in a child process; the thread of its pool only waits.

    Gossip and mingle are talk between workers, which nothing here needs.
    """
    return (
        *(sys.executable, "-m", "celery", "--quiet", "--app", "nextrapolate_worker.app:app", "worker"),
        *("--pool", "threads", "--concurrency", "1", "--queues", QUEUE),
        *("--hostname", node, "--without-gossip", "--without-mingle"),
    )


_API = (sys.executable, "-m", "nextrapolate_service.serving")
