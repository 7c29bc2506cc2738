"""An address has two answers: its page where HTML is asked for, as browsers do, and JSON everywhere else."""

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope


class PageRoute(APIRoute):
    """A route that is not there for callers who do not ask for HTML: they get the API's."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match as any other route does, where HTML is asked for."""
        return super().matches(scope) if asks_for_html(scope) else (Match.NONE, {})


def asks_for_html(scope: Scope) -> bool:
    """Tell whether a caller names text/html, and not application/json before it."""
    if scope["type"] != "http":
        return False
    accepted = _accepted(Headers(scope=scope).get("accept", ""))
    html = accepted.get("text/html", 0.0)
    return html > 0 and html >= accepted.get("application/json", 0.0)


def _accepted(header: str) -> dict[str, float]:
    """Media types by their weight; what cannot be read weighs nothing."""
    accepted = {}
    for part in header.split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((text.removeprefix("q=") for text in parameters if text.startswith("q=")), "1")
        try:
            accepted[media_type] = float(weight)
        except ValueError:
            accepted[media_type] = 0.0
    return accepted
