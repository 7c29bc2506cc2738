"""The pages, put into the app."""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from nextrapolate_service.pages import comparison, jobs, methods, reports, series, signing_in, submitting
from nextrapolate_service.pages.headers import SafeHeaders

_STATIC = Path(__file__).parent / "static"

_icon = APIRouter(include_in_schema=False)


def install(app: FastAPI) -> None:
    """Add the pages; those that share their address with the API have to come before its routes."""
    for page in (jobs, submitting, comparison, signing_in):
        app.include_router(page.router)
    for page in (jobs, submitting, reports, series, methods):
        app.include_router(page.shared)
    app.include_router(_icon)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    app.add_middleware(SafeHeaders)


@_icon.get("/favicon.ico")
async def icon() -> FileResponse:
    """What browsers ask for by themselves."""
    return FileResponse(_STATIC / "icon.svg", media_type="image/svg+xml")
