"""The page of all methods."""

from fastapi import APIRouter, Request, Response, Security

from nextrapolate.methods import METHODS
from nextrapolate_service.auth import authenticate
from nextrapolate_service.methods import OFFERED
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
    known = [(method, METHODS[method.name]) for method in OFFERED]
    methods = [(method, one.source, fields_of(one, {}, "")) for method, one in known]
    return page(request, "methods.html", methods=methods)
