"""What routers ask for: what runs here, and the fields that requests of every list take."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import Field

from nextrapolate import schemas
from nextrapolate_service.opening import Opening
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.streams import Streams
from nextrapolate_service.waiting import Waiting
from nextrapolate_service.wakeup import WakeUps
from nextrapolate_store.store import Store


async def _store(request: Request) -> Store:
    opening: Opening = request.app.state.opening
    return opening.store


def _of_app(name: str) -> Any:
    """Depend on what the app's state has under this name."""

    async def found(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(found)


OpenStore = Annotated[Store, Depends(_store)]
"""The store; where it could not be opened yet, the request is answered with the reason."""
PerhapsStore = Annotated[Opening, _of_app("opening")]
"""The store, for those who can do without it."""
OpenStreams = Annotated[Streams, _of_app("streams")]
Probing = Annotated[ThreadPoolExecutor, _of_app("probes")]
"""Threads for those who only ask how the service is: they must be answered when all others are busy."""
WaitForEnds = Annotated[Waiting, _of_app("waiting")]
Draining = Annotated[threading.Event, _of_app("draining")]
"""Set once the process has been asked to stop."""
Settings = Annotated[ServiceSettings, _of_app("settings")]
Wake = Annotated[WakeUps, _of_app("wake_ups")]


class ListQuery(schemas.Request):
    """Which page of a list; with what else may be asked of one list, where it derives from this."""

    limit: int = Field(default=20, ge=1, le=100)
    cursor: str | None = Field(default=None, description="`next_cursor` of the previous page")
