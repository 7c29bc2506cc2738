"""The app: routers, errors and the lifespan, put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from nextrapolate_service import openapi, problems
from nextrapolate_service.audit import Audit, AuditLog
from nextrapolate_service.auth import read_key_file
from nextrapolate_service.context import JsonBodyLimit, RequestId
from nextrapolate_service.reconciler import reconcile_for_ever
from nextrapolate_service.routers import artifacts, health, jobs, methods, series
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.wakeup import WakeUps
from nextrapolate_store.keys import Scope
from nextrapolate_store.store import Store


def create_app(settings: ServiceSettings) -> FastAPI:
    """Make the service's app.

    The store is opened when the app starts, and while it runs it reconciles.

    Raises:
        ValueError: the API key cannot be read.
    """
    app = FastAPI(
        title="nextrapolate",
        version=version("nextrapolate"),
        summary="Skip RLVR steps: post LoRA checkpoints, get an extrapolated adapter, train on from there.",
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        generate_unique_id_function=openapi.operation_id,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.own_key = read_key_file(settings.api_key_file) if settings.api_key_file else None
    for router in (series.router, jobs.router, artifacts.router, methods.router, health.router):
        app.include_router(router)
    problems.install(app)
    openapi.describe(app)
    app.add_middleware(JsonBodyLimit)
    app.add_middleware(Audit, log=AuditLog(settings.store.data_dir, settings.audit_days))
    app.add_middleware(RequestId)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: ServiceSettings = app.state.settings
    store = await run_in_threadpool(Store.open, settings.store)
    wake_ups = WakeUps(settings.store.redis_url)
    app.state.store, app.state.wake_ups = store, wake_ups
    if app.state.own_key:
        await run_in_threadpool(store.keys.adopt, app.state.own_key, app.state.own_key.id, list(Scope))
    reconciler = asyncio.create_task(reconcile_for_ever(store, wake_ups, settings.reconcile_seconds))
    try:
        yield
    finally:
        reconciler.cancel()
        with suppress(asyncio.CancelledError):
            await reconciler
        wake_ups.close()
        store.close()
