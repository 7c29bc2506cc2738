"""Who calls, and whether he may: bearer keys `nx_<id>_<secret>`, each of a tenant, with scopes and a rate."""

import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request, Response, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from nextrapolate_service.dependencies import OpenStore, Settings
from nextrapolate_service.errors import MissingScopeError, RateLimitedError, UnauthorizedError
from nextrapolate_service.sessions import SAFE_METHODS, token_of
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.errors import KeyRevoked
from nextrapolate_store.keys import KeyRecord, KeyText, Scope
from nextrapolate_store.store import Store

_log = logging.getLogger(__name__)

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    description="`Authorization: Bearer nx_<id>_<secret>`; the embedded server keeps one in "
    "DATA_DIR/api_key, and `nextrapolate-server keys create` makes more",
)


class KeyFirstRoute(APIRoute):
    """A route that looks at the key before it reads a body: FastAPI does so after.

    Whoever has no key, or comes too often, would have bodies kept for him, as many and for as long as he
    likes.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Have the key admitted first, where there is a body; `authenticate` finds it so."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def look_at_the_key(request: Request) -> Response:
            state = request.app.state
            shown = await bearer(request)
            await run_in_threadpool(_admit_shown, request, shown, state.opening.store, state.settings)
            return await handle(request)

        return look_at_the_key


def read_key_file(path: Path) -> KeyText:
    """Read the key that is let in without having been created; its id is the name of its tenant.

    Raises:
        ValueError: the file cannot be read, or does not hold a key.
    """
    try:
        return KeyText.parse(path.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise ValueError(f"the API key cannot be read from {path} ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{path} does not contain a key: {error}") from None


async def authenticate(
    request: Request,
    wanted: SecurityScopes,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    store: OpenStore,
    settings: Settings,
) -> str:
    """Give the tenant whose key came with the request; `request.state.key` is its record from then on.

    The session of a browser stands for the key that began it, where nothing is changed.

    Raises:
        UnauthorizedError: no key came.
        KeyUnknown: it is none of this server's.
        KeyRevoked: it was let in once.
        SessionEnded: the session in its place has ended.
        RateLimitedError: it came too often.
        MissingScopeError: it does not open this.
    """
    if not hasattr(request.state, "key"):
        await run_in_threadpool(_admit_shown, request, credentials, store, settings)
    key: KeyRecord = request.state.key
    _check_scopes(key, wanted.scopes)
    return key.tenant


def let_in(
    request: Request, store: Store, settings: ServiceSettings, key: KeyRecord, scopes: Sequence[str]
) -> str:
    """Give the tenant of a key that was found, where it comes seldom enough and opens what is wanted.

    Raises:
        RateLimitedError: it came too often.
        MissingScopeError: it does not open this.
    """
    _admit(request, store, settings, key)
    _check_scopes(key, scopes)
    return key.tenant


def _admit_shown(
    request: Request,
    credentials: HTTPAuthorizationCredentials | None,
    store: Store,
    settings: ServiceSettings,
) -> None:
    _admit(request, store, settings, find_key(request, credentials, store))


def _admit(request: Request, store: Store, settings: ServiceSettings, key: KeyRecord) -> None:
    request.state.key = key  # first: the audit log tells of refusals, too
    _check_rate(store, settings, key)


def find_key(request: Request, credentials: HTTPAuthorizationCredentials | None, store: Store) -> KeyRecord:
    """Find the key that came with the request, or that its session stands for.

    Raises:
        UnauthorizedError, KeyUnknown, KeyRevoked, SessionEnded: as `authenticate` does.
    """
    session = token_of(request)
    if credentials is None and session and request.method in SAFE_METHODS:
        return store.sessions.find(session)
    if credentials is None:
        raise UnauthorizedError(
            "send `Authorization: Bearer KEY`, with a key from the server's operator, or from the "
            "api_key file of your own server",
            field="Authorization",
        )
    try:
        return store.keys.verify(credentials.credentials)
    except KeyRevoked as error:
        _log.warning("%s; it came from %s", error, request.client.host if request.client else "nowhere")
        raise


def _check_rate(store: Store, settings: ServiceSettings, key: KeyRecord) -> None:
    rate = settings.rate_limit
    if rate is None:
        return
    wait = store.keys.admit(key.id, per_second=rate.per_second, at_once=rate.at_once)
    if wait > 0:
        raise RateLimitedError(
            f"this key may send {rate.per_second:g} requests per second, {rate.at_once} at once, and has "
            "sent more: wait as long as Retry-After says, and send requests less often",
            retry_after_seconds=math.ceil(wait),
        )


def _check_scopes(key: KeyRecord, wanted: Sequence[str]) -> None:
    missing = [scope for scope in wanted if scope not in key.scopes]
    if missing:
        raise MissingScopeError(
            f"this key has the scope {' and '.join(sorted(key.scopes))}, and this call needs {missing[0]}: "
            f"have the operator create a key with `nextrapolate-server keys create --tenant {key.tenant} "
            f"--scope {missing[0]}`",
            scope=missing[0],
        )


Tenant = Annotated[str, Security(authenticate, scopes=[Scope.READ])]
"""The tenant of a key that may read."""
WritingTenant = Annotated[str, Security(authenticate, scopes=[Scope.WRITE])]
"""The tenant of a key that may write."""
