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
        wanted = request.url.path if request.method in SAFE_METHODS else "/"
        ended = "&ended=1" if token_of(request) else ""
        return RedirectResponse(f"/login?next={quote(wanted, safe='/')}{ended}", 303)
    return page(request, "failure.html", status=problem.status, problem=problem)
