"""The page of a job's report, as its worker wrote it."""

import base64
import hashlib
import re

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from nextrapolate.schemas import REPORT_PAGE
from nextrapolate_service.auth import Tenant
from nextrapolate_service.dependencies import OpenStore
from nextrapolate_service.pages.headers import CONTENT_POLICY, NOTHING_ELSE
from nextrapolate_service.pages.negotiation import PageRoute
from nextrapolate_service.results import succeeded

shared = APIRouter(route_class=PageRoute, include_in_schema=False, tags=["results"])

_WAY_BACK = b"""<body>
<nav aria-label="Site"><a href="/jobs/%b">Back to the job</a></nav>"""
_STYLE = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


@shared.get("/jobs/{job_id}/report")
def show_report(job_id: str, tenant: Tenant, store: OpenStore) -> Response:
    """Show it with a way back, and its own style sheet, which stands in it: it needs nothing else."""
    job = succeeded(store, tenant, job_id)
    content = store.job_folders.result_path(job, REPORT_PAGE).read_bytes()
    content = content.replace(b"<body>", _WAY_BACK % job.id.encode(), 1)
    style = _STYLE.search(content)
    digest = base64.b64encode(hashlib.sha256(style[1] if style else b"").digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'none'; {NOTHING_ELSE}"
    return HTMLResponse(content, headers={CONTENT_POLICY: policy})
