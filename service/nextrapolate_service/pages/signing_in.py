"""/login and /logout: the API key once, a session from then on."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from nextrapolate_service import sessions
from nextrapolate_service.dependencies import OpenStore
from nextrapolate_service.pages.forms import AnyForm
from nextrapolate_service.pages.rendering import page
from nextrapolate_store.errors import KeyRefused
from nextrapolate_store.keys import KeyRecord, Scope
from nextrapolate_store.store import Store

router = APIRouter(include_in_schema=False)

Next = Annotated[str, Query(alias="next")]
_ENDED = {
    "page": "Your session has ended.",
    "form": "Your session has ended, and nothing was done with what you sent: sign in, and enter it again.",
}
"""What is said to somebody who asked for a page, or who sent a form."""


@router.get("/login")
async def show_login(
    request: Request, invitation: str = "", following: Next = "/", ended: str = ""
) -> Response:
    """Ask for the key, or offer to take an invitation."""
    error = _ENDED.get(ended)
    return page(request, "login.html", invitation=invitation, following=_own_path(following), error=error)


@router.post("/login")
async def sign_in(request: Request, fields: AnyForm, store: OpenStore) -> Response:
    """Begin a session."""
    entered = {name: values[0].strip() for name, values in fields.items()}
    following = _own_path(entered.get("next", "/"))
    try:
        key = await run_in_threadpool(_shown, store, entered)
    except KeyRefused as error:
        return _ask_again(request, 401, following, str(error))
    if Scope.READ not in key.scopes:
        opened = " and ".join(sorted(key.scopes))
        return _ask_again(
            request,
            403,
            following,
            f"This key allows only {opened}, and no page: sign in with a key that may read.",
        )
    token = await run_in_threadpool(store.sessions.begin, key)
    request.state.key = key
    response = RedirectResponse(following, 303)
    sessions.keep(request, response, token)
    return response


@router.post("/logout")
async def sign_out(request: Request, fields: AnyForm, store: OpenStore) -> Response:
    """End the session; the form need not be signed, since nothing can be made of signing somebody out."""
    if token := sessions.token_of(request):
        await run_in_threadpool(store.sessions.end, token)
    response = RedirectResponse("/login", 303)
    sessions.forget(request, response)
    return response


def _ask_again(request: Request, status: int, following: str, error: str) -> Response:
    return page(request, "login.html", status=status, invitation="", following=following, error=error)


def _shown(store: Store, entered: dict[str, str]) -> KeyRecord:
    if invitation := entered.get("invitation"):
        return store.sessions.accept(invitation)
    return store.keys.verify(entered.get("key", ""))


def _own_path(path: str) -> str:
    """Keep a redirect on this server: a path, and no address of another."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
