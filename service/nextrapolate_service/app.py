"""The app: routers, errors and the lifespan, put together."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI

from nextrapolate_service import openapi, problems
from nextrapolate_service.audit import Audit, AuditLog
from nextrapolate_service.auth import read_key_file
from nextrapolate_service.context import JsonBodyLimit, RequestId
from nextrapolate_service.opening import Opening
from nextrapolate_service.pages import site
from nextrapolate_service.reconciler import reconcile_for_ever
from nextrapolate_service.routers import artifacts, health, jobs, methods, metrics, series
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.streams import Streams
from nextrapolate_service.waiting import Waiting
from nextrapolate_service.wakeup import WakeUps
from nextrapolate_service.webhooks.delivering import deliver_for_ever

_PATIENCE_SECONDS = 2.0
"""How long the start waits for Redis. Without it the API answers that it is not ready."""


def create_app(settings: ServiceSettings) -> FastAPI:
    """Make the service's app.

    When it starts, it opens the store as soon as Redis is there, and reconciles while it runs.

    Raises:
        ValueError: the API key cannot be read.
    """
    app = FastAPI(
        title="nextrapolate",
        version=version("nextrapolate"),
        summary="Skip RLVR steps: post LoRA checkpoints, get an extrapolated adapter, train on from there.",
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        servers=[{"url": "/"}],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=_lifespan,
        docs_url=None,  # they load their scripts from elsewhere
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.draining = threading.Event()
    app.state.waiting = Waiting(app.state.draining)
    app.state.own_key = read_key_file(settings.api_key_file) if settings.api_key_file else None
    site.install(app)
    # The routes as they are: include_router would have the first request wait until all are made once more.
    for part in (series, jobs, artifacts, methods, health, metrics):
        app.router.routes += part.router.routes
    app.webhooks = openapi.webhooks
    problems.install(app)
    openapi.describe(app)
    app.add_middleware(JsonBodyLimit)
    app.add_middleware(Audit, log=AuditLog(settings.store.data_dir, settings.audit_days))
    app.add_middleware(RequestId)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: ServiceSettings = app.state.settings
    opening = Opening(settings, app.state.own_key)
    wake_ups = WakeUps(settings.store.redis_url)
    streams = Streams(settings.event_streams)
    app.state.opening, app.state.wake_ups, app.state.streams = opening, wake_ups, streams
    app.state.probes = ThreadPoolExecutor(4, "probes")
    upkeep = asyncio.create_task(_keep_up(opening, wake_ups, settings))
    await opening.wait(_PATIENCE_SECONDS)
    try:
        yield
    finally:
        app.state.draining.set()
        upkeep.cancel()
        with suppress(asyncio.CancelledError):
            await upkeep
        app.state.probes.shutdown(wait=False)
        streams.close()
        wake_ups.close()
        opening.close()


async def _keep_up(opening: Opening, wake_ups: WakeUps, settings: ServiceSettings) -> None:
    store = await opening.until_open()
    await asyncio.gather(
        reconcile_for_ever(store, wake_ups, settings.quotas, settings.reconcile_seconds),
        deliver_for_ever(store, settings),
    )
