"""Nothing that a caller can send is answered with a 5xx."""

import json
from typing import Any
from urllib.parse import quote

from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ODD: st.SearchStrategy[Any] = st.sampled_from(
    ["", "\ud800", "\0", "../..", "file:///etc/passwd", "nan", 10**400, -1, 2**63, 1e308, None, True, [], {}]
)
FIELDS = st.sampled_from(
    [
        *(
            "name",
            "series",
            "checkpoints",
            "uri",
            "step",
            "until",
            "method",
            "alpha",
            "horizon_steps",
            "seed",
        ),
        *("output", "rank", "gate", "labels", "lora_config", "base_model", "job", "r", "lora_alpha"),
    ]
)
ANYTHING = st.recursive(
    ODD | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS | st.text(), inner, max_size=4),
    max_leaves=10,
)
BODIES: list[dict[str, Any]] = [
    {"name": "run", "labels": {}, "lora_config": {"r": 2, "lora_alpha": 4}},
    {"checkpoints": [{"uri": "file:///runs/checkpoint-1", "step": 1}, {"uri": "file:///runs/2", "step": 2}]},
    {"series": "x", "until": 3, "method": {"name": "next", "alpha": 1.0}, "output": {}, "gate": {}},
    {"step": 1, "job": "x"},
]
TRY_HARD = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=200,
)


@TRY_HARD
@given(
    path=st.sampled_from(["/jobs", "/series", "/series/01ARZ3NDEKTSV4RRFFQ69G5FAV/jumps"]),
    body=st.sampled_from(BODIES),
    changes=st.dictionaries(FIELDS, ANYTHING, max_size=3),
)
def test_any_body(client: TestClient, path: str, body: dict[str, Any], changes: dict[str, Any]) -> None:
    content = json.dumps({**body, **changes})
    answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text


@TRY_HARD
@given(
    template=st.sampled_from(
        [
            *("/jobs/{}", "/jobs/{}/events", "/jobs/{}/adapter/x", "/jobs/x/adapter/{}", "/series/{}", "/{}"),
            *("/jobs?cursor={}", "/jobs?limit={}", "/jobs?state={}", "/series?cursor={}"),
        ]
    ),
    text=st.text(st.characters(codec="utf-8")),
    header=st.sampled_from(
        ["Range", "If-None-Match", "Last-Event-ID", "Prefer", "X-Request-Id", "Authorization"]
    ),
    value=st.binary(max_size=40).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b"").strip()),
)
def test_any_address_and_header(
    client: TestClient, template: str, text: str, header: str, value: bytes
) -> None:
    answer = client.get(template.format(quote(text, safe="")), headers=[(header.encode(), value)])
    assert answer.status_code < 500, answer.text
