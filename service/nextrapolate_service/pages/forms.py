"""What forms bring: fields, and the right to change something."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from nextrapolate_service.auth import let_in
from nextrapolate_service.dependencies import OpenStore, Settings
from nextrapolate_service.errors import ForeignFormError, MalformedFormError
from nextrapolate_service.sessions import FORM_TOKEN, is_own_form, is_own_origin, token_of
from nextrapolate_store.errors import SessionEnded
from nextrapolate_store.keys import Scope

_MOST_FIELDS = 200
_MOST_OPEN_BYTES = 16 << 10
"""Of a form that anybody may send: a key or an invitation, and where to go from there."""

Fields = Mapping[str, list[str]]


@dataclass(frozen=True)
class SignedForm:
    """A form that one of our pages sent, in a session that may write.

    Attributes:
        tenant: whose session it is.
        fields: what was entered, by name; what is left empty is there, a box without a tick is not.
    """

    tenant: str
    fields: Fields

    def first(self, name: str) -> str:
        """Give the one value of a field, or nothing."""
        return self.fields.get(name, [""])[0]


async def read_open_form(request: Request) -> Fields:
    """Read a form of somebody who need not be known: a short one.

    Raises:
        ForeignFormError: another site's page sent it.
        MalformedFormError: it is longer than any of ours.
    """
    _require_own_origin(request)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_OPEN_BYTES:
            raise MalformedFormError(
                f"this form is longer than {_MOST_OPEN_BYTES} bytes: open the page again, and send the form "
                "from there"
            )
    return _parse(bytes(body))


async def _let_in(request: Request, store: OpenStore, settings: Settings) -> str:
    """Let a session in that may write, before its form is read, and give its tenant."""
    token = token_of(request)
    if token is None:
        raise SessionEnded("you are not signed in: sign in with your API key")
    key = await run_in_threadpool(store.sessions.find, token)
    _require_own_origin(request)
    return await run_in_threadpool(let_in, request, store, settings, key, [Scope.WRITE])


def _require_own_origin(request: Request) -> None:
    if not is_own_origin(request):
        raise ForeignFormError(
            "this form was sent from another site: open the page here, and send the form again"
        )


def _parse(body: bytes) -> Fields:
    try:
        return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise MalformedFormError(
            f"this form has more than {_MOST_FIELDS} fields: open the page again, and send the form from "
            "there"
        ) from None


async def _read_signed(request: Request, tenant: Annotated[str, Depends(_let_in)]) -> SignedForm:
    fields = _parse(await request.body())
    if not is_own_form(request, fields.get(FORM_TOKEN, [""])[0]):
        raise ForeignFormError(
            "this form was made for another session: open the page again, and send the form from there"
        )
    return SignedForm(tenant, fields)


AnyForm = Annotated[Fields, Depends(read_open_form)]
"""A form of one of our pages, sent by whomever."""
OwnForm = Annotated[SignedForm, Depends(_read_signed)]
"""A form of one of our pages, sent by somebody who may write."""
