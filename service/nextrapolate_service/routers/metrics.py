"""/metrics: for Prometheus, with a key that opens it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, SecurityScopes
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from nextrapolate_service.auth import authenticate, bearer
from nextrapolate_service.dependencies import PerhapsStore, Settings
from nextrapolate_service.disk import free_bytes
from nextrapolate_service.metrics import StoreMetrics, registry_of
from nextrapolate_service.openapi import operation_id, problem_responses
from nextrapolate_store.errors import StoreIncompatible, StoreLost, StoreMismatched, StoreUnavailable
from nextrapolate_store.keys import Scope
from nextrapolate_store.statistics import Statistics

router = APIRouter(tags=["metrics"], generate_unique_id_function=operation_id)

_METRICS = {CONTENT_TYPE_PLAIN_0_0_4: {"schema": {"type": "string"}}}


def read_statistics(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer, scopes=[Scope.METRICS])],
    opening: PerhapsStore,
    settings: Settings,
) -> Statistics | None:
    """Read them for a key that may. Without Redis there are neither keys nor statistics: all are told so."""
    try:
        store = opening.store
        authenticate(request, SecurityScopes([Scope.METRICS]), credentials, store, settings)
        return store.statistics.read()
    except (StoreUnavailable, StoreLost, StoreIncompatible, StoreMismatched):
        return None


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format.", "content": _METRICS},
        **problem_responses(403, 429),
    },
    summary="Read the metrics",
)
def get_metrics(
    statistics: Annotated[Statistics | None, Depends(read_statistics)], settings: Settings
) -> Response:
    """Over all tenants; needs a key of scope `metrics`."""
    found = StoreMetrics(statistics, free_bytes(settings))
    return Response(generate_latest(registry_of(found)), media_type=CONTENT_TYPE_PLAIN_0_0_4)
