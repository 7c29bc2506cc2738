"""/methods: what this server can compute."""

from fastapi import APIRouter, Security

from nextrapolate.schemas import MethodList
from nextrapolate_service.auth import authenticate
from nextrapolate_service.methods import OFFERED
from nextrapolate_service.openapi import operation_id, problem_responses
from nextrapolate_store.keys import Scope

router = APIRouter(
    tags=["methods"],
    dependencies=[Security(authenticate, scopes=[Scope.READ])],
    generate_unique_id_function=operation_id,
)


@router.get("/methods", responses=problem_responses(), summary="List methods")
async def list_methods() -> MethodList:
    """Each method with its paper and the JSON schema of its parameters, defaults included."""
    return MethodList(methods=list(OFFERED))
