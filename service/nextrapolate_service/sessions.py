"""Browsers: a cookie in place of the API key, and forms that only our own pages can send.

The cookie holds a session's token. Scripts cannot read it, other sites' pages cannot make a browser send it,
and it opens what changes nothing. A form has to bring a second token besides, which is made from the first.
"""

import hashlib
import hmac

from fastapi import Request, Response

from nextrapolate_store.sessions import SESSION_SECONDS

SAFE_METHODS = ("GET", "HEAD")
FORM_TOKEN = "form_token"  # noqa: S105 - the name of a field


def token_of(request: Request) -> str | None:
    """Give the session's token that came with the request."""
    return request.cookies.get(_cookie(request))


def keep(request: Request, response: Response, token: str) -> None:
    """Have the browser keep a session's token."""
    response.set_cookie(
        _cookie(request),
        token,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def forget(request: Request, response: Response) -> None:
    """Have the browser forget it."""
    response.delete_cookie(_cookie(request), httponly=True, samesite="strict")


def form_token(request: Request) -> str:
    """Make what a form of this session has to bring; it takes the session's token to make it."""
    return hmac.new((token_of(request) or "").encode(), b"form", hashlib.sha256).hexdigest()


def is_own_form(request: Request, brought: str) -> bool:
    """Tell whether a form was made for this session."""
    return hmac.compare_digest(form_token(request).encode(), brought.encode())


def is_own_origin(request: Request) -> bool:
    """Tell whether the page that sent a request is ours, as far as the browser says where it comes from."""
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host")


def _cookie(request: Request) -> str:
    """Browsers keep cookies by host and not by port, and one machine may run several servers."""
    return f"nextrapolate-{request.url.port or request.url.scheme}"
