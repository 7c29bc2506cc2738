"""The event streams that this process keeps open: so many of each tenant, read by threads of their own."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from nextrapolate_service.errors import TooManyStreamsError

T = TypeVar("T")

_THREADS = 4


class Streams:
    """Places for event streams.

    A stream reads five times a second, and at first more often, for as long as a job takes. On the threads
    that all requests share, the streams of one tenant would have everybody else's requests wait.
    """

    def __init__(self, per_tenant: int) -> None:
        self._per_tenant = per_tenant
        self._open: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="event-streams")

    @contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """Take one of the tenant's places, for as long as its stream is open.

        Raises:
            TooManyStreamsError: all of them are taken.
        """
        if self._open[tenant] >= self._per_tenant:
            raise TooManyStreamsError(
                f"this tenant has {self._per_tenant} event streams open here, which is the maximum: close "
                "some, or poll the job itself (GET /jobs/{job_id}) from time to time"
            )
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    async def read(self, read: Callable[[], T]) -> T:
        """Have one of the threads read."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, read)

    def close(self) -> None:
        """Let the threads go; what they read now is the last."""
        self._threads.shutdown(wait=False, cancel_futures=True)
