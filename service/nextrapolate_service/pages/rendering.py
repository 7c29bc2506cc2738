"""From a template and what it shows to an answer."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from nextrapolate.digits import number
from nextrapolate.methods import label
from nextrapolate_service.pages import wording
from nextrapolate_service.pages.headers import SAFE_HEADERS
from nextrapolate_service.sessions import FORM_TOKEN, form_token
from nextrapolate_store.keys import KeyRecord, Scope

_templates = Environment(
    loader=PackageLoader("nextrapolate_service", "pages/templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(request: Request, template: str, *, status: int = 200, **shown: Any) -> HTMLResponse:
    """Render a page; it is never stored, since what it shows changes and belongs to one tenant."""
    key: KeyRecord | None = getattr(request.state, "key", None)
    shared: Mapping[str, Any] = {
        "key": key,
        "signed_in": key is not None,
        "may_write": key is not None and Scope.WRITE in key.scopes,
        "form_token_name": FORM_TOKEN,
        "form_token": form_token(request),
        "here": request.url.path,
        "now": datetime.now(UTC),
    }
    text = _templates.get_template(template).render({**shared, **shown})
    content = text.encode("utf-8", "replace")  # what is quoted of a request need not be valid Unicode
    return HTMLResponse(content, status, headers={**SAFE_HEADERS, "Cache-Control": "no-store"})


_templates.filters |= {
    "number": number,
    "label": label,
    "ago": wording.ago,
    "state": wording.state,
    "stage": wording.stage,
    "checkpoints": wording.checkpoints,
    "methods": wording.methods,
    "told": wording.webhook,
}
