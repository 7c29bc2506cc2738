"""Requests that wait for the ends of jobs (`Prefer: wait`), all of them by one look at a time."""

import asyncio
import threading
from contextlib import suppress

from fastapi.concurrency import run_in_threadpool

from nextrapolate_store.store import Store

_LOOK_SECONDS = 0.1


class Waiting:
    """Looks which of the jobs have ended, for as long as anybody waits.

    If each of them looked for itself, those who wait would take the threads of those who do not.
    """

    def __init__(self, draining: threading.Event) -> None:
        self._draining = draining
        self._waiters: dict[asyncio.Future[None], str] = {}
        self._looking: asyncio.Task[None] | None = None

    async def until_ended(self, store: Store, job_id: str, seconds: float) -> None:
        """Wait for a job's end, for so long at most, and no longer than this process takes requests.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = job_id
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(store))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiter
        finally:
            del self._waiters[waiter]

    async def _look(self, store: Store) -> None:
        while self._waiters and not self._draining.is_set():
            await asyncio.sleep(_LOOK_SECONDS)
            asked = dict(self._waiters)
            try:
                ended = await run_in_threadpool(store.jobs.ended, set(asked.values()))
            except Exception as error:  # noqa: BLE001 - whoever waits raises it
                for waiter in asked:
                    _answer(waiter, error)
            else:
                for waiter, job_id in asked.items():
                    if job_id in ended:
                        _answer(waiter)
        for waiter in self._waiters:
            _answer(waiter)


def _answer(waiter: "asyncio.Future[None]", error: Exception | None = None) -> None:
    if waiter.done():  # it has given up in the meantime
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
