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
        if request.method in SAFE_METHODS:
            wanted, ended = _address(request), "&ended=page" if token_of(request) else ""
        else:  # only a session was given the form, and browsers drop its cookie with it
            wanted, ended = _sent_from(request), "&ended=form"
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
