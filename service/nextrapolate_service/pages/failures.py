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
        wanted = _address(request) if request.method in SAFE_METHODS else "/"
        ended = "&ended=1" if token_of(request) else ""
        return RedirectResponse(f"/login?next={quote(wanted, safe='/')}{ended}", 303)
    # An address that is none asks for no session, and yet whoever has one keeps his menu.
    signed_in = token_of(request) is not None
    return page(request, "failure.html", status=problem.status, problem=problem, signed_in=signed_in)


def _address(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path
