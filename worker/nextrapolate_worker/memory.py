"""The memory of this process: its peak, and how it is kept low."""

import ctypes
import time
from pathlib import Path

_SECONDS = 0.2


class Heap:
    """Gives free memory back to the system from time to time, where the C library is one that keeps it.

    The numerics make a few large matrices for each module, and keep a few small numbers of it. glibc leaves
    the holes between these in the process: hundreds of megabytes, after some hundred modules.
    """

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._next = 0.0

    def tidy(self) -> None:
        """Called often, does something five times a second."""
        if time.monotonic() >= self._next:
            self.trim()

    def trim(self) -> None:
        """Give back what is free now."""
        if self._trim is not None:
            self._trim(0)
        self._next = time.monotonic() + _SECONDS


def peak_memory_bytes() -> int:
    """Peak resident memory of this process.

    From /proc where there is one: getrusage's figure survives exec and would count the worker's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
