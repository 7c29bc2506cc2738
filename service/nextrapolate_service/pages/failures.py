"""A problem as a page: what went wrong, and what to do."""

from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from nextrapolate.schemas import Problem
from nextrapolate_service.pages.rendering import page
from nextrapolate_service.sessions import SAFE_METHODS, token_of


def failure_page(request: Request, problem: Problem) -> Response:
    """Show a problem; who is not signed in is asked to, and comes back to where he wanted to go."""
    if problem.status == 401:
        is_form = request.method not in SAFE_METHODS
        wanted = _sent_from(request) if is_form else _address(request)
        ended = f"&ended={'form' if is_form else 'page'}" if token_of(request) else ""
        return RedirectResponse(f"/login?next={quote(wanted, safe='/')}{ended}", 303)
    # An address that is none asks for no session, and yet whoever has one keeps his menu.
    signed_in = token_of(request) is not None
    return page(request, "failure.html", status=problem.status, problem=problem, signed_in=signed_in)


def _sent_from(request: Request) -> str:
    """The page of ours that a form was sent from, where the browser says so."""
    here, referrer = str(request.base_url), request.headers.get("Referer", "")
    return f"/{referrer.removeprefix(here)}" if referrer.startswith(here) else "/"


def _address(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path
