"""A job's events as Server-Sent Events.

The ids of the store's stream are the SSE ids: whoever resumes misses nothing and gets nothing twice.
"""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from nextrapolate.schemas import JobEvent
from nextrapolate_service.auth import Tenant
from nextrapolate_service.dependencies import OpenStore, OpenStreams
from nextrapolate_service.streams import Streams
from nextrapolate_store.errors import StoreError
from nextrapolate_store.keys import KeyRecord
from nextrapolate_store.store import Store

KEEP_ALIVE_SECONDS = 15.0

_SHORTEST_PAUSE, _LONGEST_PAUSE, _PAUSE_SHARE = 0.02, 0.2, 0.05
_CHECK_SECONDS = 0.8
"""How long a stream may go without asking for its key and its job: it would cost three times as much to ask
whenever it looks for events."""


class EventReader:
    """Stands behind the last event that was read."""

    def __init__(self, store: Store, key: KeyRecord, job_id: str, after: str | None) -> None:
        self._store = store
        self._key = key
        self._job_id = job_id
        self._after = after
        self._checked = -math.inf

    def read(self) -> tuple[list[JobEvent], bool]:
        """Give the events that are new, and whether they are the last ones.

        Raises:
            KeyRevoked: whoever asks is not let in any more.
            JobNotFound: no such job of this tenant.
            InvalidCursor: the id to go on from is none.
        """
        # First the state, then the events: a job that is final has written its last event by then.
        is_final = time.monotonic() >= self._checked + _CHECK_SECONDS and self._is_final()
        events = self._store.jobs.events(self._job_id, self._after)
        if events:
            self._after = events[-1].id
            return events, events[-1].state.is_final
        return [], is_final

    def _is_final(self) -> bool:
        self._store.keys.check_current(self._key)
        job = self._store.jobs.get(self._key.tenant, self._job_id)
        self._checked = time.monotonic()
        return job.state.is_final


async def open_events(
    request: Request,
    job_id: str,
    tenant: Tenant,
    store: OpenStore,
    streams: OpenStreams,
    last_event_id: Annotated[
        str | None,
        Header(description="id of the last event that was received; the stream continues after it"),
    ] = None,
) -> AsyncIterator[EventReader | None]:
    """Refuse what can be refused while there is still a status to refuse it with; keep a place meanwhile.

    Gives None to who has had the last event: browsers come back for more until a status tells them not to.
    """
    with streams.place(tenant):
        # What is read here is thrown away: the stream has it still to send, and so begins before it again.
        events, ended = await streams.read(EventReader(store, request.state.key, job_id, last_event_id).read)
        has_all = last_event_id is not None and ended and not events
        yield None if has_all else EventReader(store, request.state.key, job_id, last_event_id)


Events = Annotated[EventReader | None, Depends(open_events)]


async def follow(reader: EventReader, streams: Streams, draining: threading.Event) -> AsyncIterator[bytes]:
    """Yield events as they happen, up to the job's last one, and a comment where nothing happens for long.

    Where the store or the job goes away, the key is revoked, or this process is asked to stop, the stream
    ends: the caller comes back with Last-Event-ID, and is told.
    """
    opened = silent_since = time.monotonic()
    while not draining.is_set():
        try:
            events, ended = await streams.read(reader.read)
        except StoreError:
            return
        for event in events:
            yield format_sse_event(data_str=event.model_dump_json(), event=event.type, id=event.id)
        if ended:
            return
        if events:
            silent_since = time.monotonic()
        elif time.monotonic() - silent_since > KEEP_ALIVE_SECONDS:
            yield KEEPALIVE_COMMENT
            silent_since = time.monotonic()
        await asyncio.sleep(pause(time.monotonic() - opened))


def pause(open_seconds: float) -> float:
    """Give the seconds from one look for events to the next, of a stream that has been open for so long.

    A trainer waits for its job, often for less than a second, and should hear of its end at once. Whoever has
    waited for long loses little by a longer pause, which costs less.
    """
    return min(max(_PAUSE_SHARE * open_seconds, _SHORTEST_PAUSE), _LONGEST_PAUSE)
