"""What routers ask for: what runs here, and the fields that requests of every list take."""

import threading
from typing import Annotated

from fastapi import Depends, Query, Request

from nextrapolate_service.opening import Opening
from nextrapolate_service.probes import Probes
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.streams import Streams
from nextrapolate_service.waiting import Waiting
from nextrapolate_service.wakeup import WakeUps
from nextrapolate_store.store import Store


async def _store(request: Request) -> Store:
    opening: Opening = request.app.state.opening
    return opening.store


async def _opening(request: Request) -> Opening:
    opening: Opening = request.app.state.opening
    return opening


async def _settings(request: Request) -> ServiceSettings:
    settings: ServiceSettings = request.app.state.settings
    return settings


async def _wake_ups(request: Request) -> WakeUps:
    wake_ups: WakeUps = request.app.state.wake_ups
    return wake_ups


async def _streams(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


async def _waiting(request: Request) -> Waiting:
    waiting: Waiting = request.app.state.waiting
    return waiting


async def _probes(request: Request) -> Probes:
    probes: Probes = request.app.state.probes
    return probes


async def _draining(request: Request) -> threading.Event:
    draining: threading.Event = request.app.state.draining
    return draining


OpenStore = Annotated[Store, Depends(_store)]
"""The store; where it could not be opened yet, the request is answered with the reason."""
PerhapsStore = Annotated[Opening, Depends(_opening)]
"""The store, for those who can do without it."""
OpenStreams = Annotated[Streams, Depends(_streams)]
Probing = Annotated[Probes, Depends(_probes)]
WaitForEnds = Annotated[Waiting, Depends(_waiting)]
Draining = Annotated[threading.Event, Depends(_draining)]
"""Set once the process has been asked to stop."""
Settings = Annotated[ServiceSettings, Depends(_settings)]
Wake = Annotated[WakeUps, Depends(_wake_ups)]

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the previous page")]
