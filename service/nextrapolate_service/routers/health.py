"""/livez and /readyz: for probes, without a key."""

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, Response

from nextrapolate.schemas import Readiness
from nextrapolate_service.dependencies import PerhapsStore, Probing, Settings
from nextrapolate_service.disk import require_space, require_writable
from nextrapolate_service.errors import DiskReserveError
from nextrapolate_service.openapi import operation_id
from nextrapolate_store.errors import StoreError

router = APIRouter(tags=["health"], generate_unique_id_function=operation_id)


@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Is the process alive?")
async def livez() -> dict[str, bool]:
    """Answers as long as the process is alive."""
    return {"alive": True}


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    responses={503: {"model": Readiness, "description": "Not ready."}},
    summary="Can jobs be accepted?",
)
async def readyz(opening: PerhapsStore, settings: Settings, probes: Probing, response: Response) -> Readiness:
    """Checks what every job needs: writes to Redis and to the disk with the blobs, which has room."""

    def look() -> dict[str, str]:
        return {
            "redis": _outcome(lambda: opening.store.ping()),
            "disk": _outcome(lambda: require_space(settings)),
            "blobs": _outcome(lambda: require_writable(settings)),
        }

    checks = await asyncio.get_running_loop().run_in_executor(probes, look)
    ready = all(outcome == "ok" for outcome in checks.values())
    if not ready:
        response.status_code = 503
    return Readiness(ready=ready, checks=checks)


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except (StoreError, DiskReserveError, OSError) as error:
        return str(error)
    return "ok"
