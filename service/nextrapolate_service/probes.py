"""Threads for those who only ask how the service is: they must be answered when all others are busy."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_THREADS = 4

T = TypeVar("T")


class Probes:
    """Runs what /readyz and /metrics look at."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "probes")

    async def run(self, look: Callable[[], T]) -> T:
        """Give what `look` gives."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, look)

    def close(self) -> None:
        """Wait for no look that is under way."""
        self._pool.shutdown(wait=False)
