"""The memory of this process: its peak, and how it is kept low."""

import ctypes
import time
from pathlib import Path

_SECONDS = 0.2
_LARGE_BYTES = 4 << 20
_SPARE_BYTES = 16 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


class Heap:
    """Gives free memory back to the system, where the C library is one that keeps it.

    The numerics make a few large matrices for each module, and keep a few small numbers of it. glibc leaves
    the holes between these in the process: hundreds of megabytes, after some hundred modules. What is large
    it is told to give back the moment that it is free, the rest it is asked for from time to time. Until then
    it may keep some, or the same pages would come and go with every matrix.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._trim = getattr(library, "malloc_trim", None)
        if self._trim is not None:
            library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
            library.mallopt(_M_TRIM_THRESHOLD, _SPARE_BYTES)
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
