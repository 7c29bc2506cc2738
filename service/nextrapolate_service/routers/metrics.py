"""/metrics: for Prometheus, with a key that opens it."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from nextrapolate_service.auth import bearer, find_key, let_in
from nextrapolate_service.dependencies import PerhapsStore, Probing, Settings
from nextrapolate_service.disk import Space, find_space
from nextrapolate_service.metrics import StoreMetrics
from nextrapolate_service.openapi import operation_id, problem_responses
from nextrapolate_service.opening import Opening
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.errors import StoreIncompatible, StoreLost, StoreMismatched, StoreUnavailable
from nextrapolate_store.keys import Scope
from nextrapolate_store.statistics import Statistics

router = APIRouter(tags=["metrics"], generate_unique_id_function=operation_id)

_METRICS = {CONTENT_TYPE_PLAIN_0_0_4: {"schema": {"type": "string"}}}


_Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(bearer, scopes=[Scope.METRICS])]


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format.", "content": _METRICS},
        **problem_responses(403, 429),
    },
    summary="Read the metrics",
)
async def get_metrics(
    request: Request, credentials: _Credentials, opening: PerhapsStore, settings: Settings, probes: Probing
) -> Response:
    """Over all tenants; needs a key of scope `metrics`."""

    def look() -> bytes:
        statistics = _statistics(request, credentials, opening, settings)
        return generate_latest(StoreMetrics(statistics, _space(settings)))

    metrics = await asyncio.get_running_loop().run_in_executor(probes, look)
    return Response(metrics, media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _statistics(
    request: Request,
    credentials: HTTPAuthorizationCredentials | None,
    opening: Opening,
    settings: ServiceSettings,
) -> Statistics | None:
    """Read them for a key that may. Without Redis there are neither keys nor statistics: all are told so."""
    try:
        store = opening.store
        store.check_answers()  # all else would wait longer for a Redis that hangs than whoever scrapes this
        let_in(request, store, settings, find_key(request, credentials, store), [Scope.METRICS])
        return store.statistics.read()
    except (StoreUnavailable, StoreLost, StoreIncompatible, StoreMismatched):
        return None


def _space(settings: ServiceSettings) -> Space | None:
    try:
        return find_space(settings)
    except OSError:
        return None
