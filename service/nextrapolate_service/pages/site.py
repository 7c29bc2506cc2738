"""The pages, put into the app."""

from pathlib import Path

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from nextrapolate_service.pages import comparison, jobs, methods, reports, series, signing_in, submitting
from nextrapolate_service.pages.headers import SafeHeaders

_STATIC = Path(__file__).parent / "static"

_icon = APIRouter(include_in_schema=False)


def install(app: FastAPI) -> None:
    """Add the pages; those that share their address with the API have to come before its routes."""
    for page in (jobs, submitting, comparison, signing_in):
        app.router.routes += page.router.routes
    for page in (jobs, submitting, reports, series, methods):
        app.router.routes += page.shared.routes
    app.router.routes += _icon.routes
    app.mount("/static", _Checked(directory=_STATIC), name="static")
    app.add_middleware(SafeHeaders)


class _Checked(StaticFiles):
    """Files that browsers ask for again each time: their pages change with them, and an ETag costs little."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer, or say that the browser has it already."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


@_icon.get("/favicon.ico")
async def icon() -> FileResponse:
    """What browsers ask for by themselves."""
    return FileResponse(_STATIC / "icon.svg", media_type="image/svg+xml")
