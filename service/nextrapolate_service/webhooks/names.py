"""Names of webhooks, looked up: as many of each tenant at a time as leave the others theirs."""

import asyncio
import socket
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address

from nextrapolate_service.webhooks.addresses import Address

_OF_ONE_TENANT = 4
_THREADS = 64


class Names:
    """Looks names up on threads of its own.

    The operating system may take half a minute over a name whose servers do not answer, and nobody can stop
    it. Who asked for it has given up by then, but its tenant's place is taken until the thread is free.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="webhook-names")
        self._places: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_OF_ONE_TENANT))

    async def look_up(self, tenant: str, host: str, port: int) -> list[Address]:
        """Give the addresses that a name stands for, once the tenant has a place for that.

        Raises:
            OSError: there is no such name.
        """
        place = self._places[tenant]
        await place.acquire()
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        asking = asyncio.get_running_loop().run_in_executor(self._threads, ask)
        asking.add_done_callback(lambda _: place.release())
        found = await asyncio.shield(asking)
        return [ip_address(str(where[0]).partition("%")[0]) for *_, where in found]

    def close(self) -> None:
        """Let the threads go; what they look up now is the last."""
        self._threads.shutdown(wait=False, cancel_futures=True)
