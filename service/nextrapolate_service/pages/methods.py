"""The page of all methods."""

from fastapi import APIRouter, Request, Response, Security

from nextrapolate_service.auth import authenticate
from nextrapolate_service.methods import METHODS
from nextrapolate_service.pages.negotiation import PageRoute
from nextrapolate_service.pages.parameters import fields_of
from nextrapolate_service.pages.rendering import page
from nextrapolate_store.keys import Scope

shared = APIRouter(
    route_class=PageRoute,
    include_in_schema=False,
    dependencies=[Security(authenticate, scopes=[Scope.READ])],
)


@shared.get("/methods")
def show_methods(request: Request) -> Response:
    """List what this server can compute, with its sources and parameters."""
    methods = [(entry.info(), fields_of(entry.parameters, {}, "")) for entry in METHODS.values()]
    return page(request, "methods.html", methods=methods)
