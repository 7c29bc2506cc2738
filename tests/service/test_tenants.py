"""Another tenant's things: to whoever asks, they are not there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.problems import problem

from nextrapolate_service.app import create_app
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.keys import Scope
from nextrapolate_store.store import Store

Finish = Callable[[str], dict[str, bytes]]

NOBODYS = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
LINE = {"name": "weight-extrapolation"}


@pytest.fixture
def others(client: TestClient, store: Store) -> dict[str, str]:
    """Headers of another tenant of the same service."""
    _, key = store.keys.create("others", [Scope.WRITE])
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def job_id(client: TestClient, series_id: str, finish: Finish) -> str:
    """A job that has succeeded."""
    job = client.post("/jobs", json={"series": series_id, "method": LINE}).json()
    finish(job["id"])
    return str(job["id"])


def test_no_endpoint_knows_another_tenants_ids(
    client: TestClient, series_id: str, job_id: str, others: dict[str, str]
) -> None:
    def answer(method: str, path: str, name: str, series_id: str, job_id: str) -> dict[str, str]:
        bodies: dict[str, dict[str, Any]] = {
            "announce_checkpoint": {"json": {"files": {"adapter_config.json": "0" * 64}}},
            "put_checkpoint_file": {"content": CONFIG},
            "record_jump": {"json": {"step": 10, "job": job_id}},
        }
        file = "adapter_model.safetensors" if "/adapter/" in path else "adapter_config.json"
        address = path.format(series_id=series_id, job_id=job_id, step=10, file=file)
        answer = client.request(method, address, headers=others, **bodies.get(name, {}))
        assert answer.status_code == 404, name
        told = {**answer.json(), "request_id": ""} if method != "head" else {}
        return {name: str(value).replace(series_id, "").replace(job_id, "") for name, value in told.items()}

    walked = 0
    for path, described in client.get("/openapi.json").json()["paths"].items():
        for method, operation in described.items() if "{" in path else ():
            theirs, nobodys = (
                answer(method, path, operation["operationId"], *ids)
                for ids in ((series_id, job_id), (NOBODYS, NOBODYS))
            )
            assert theirs == nobodys
            walked += 1
    assert walked >= 9


def test_what_a_body_names_is_not_there_either(
    client: TestClient, series_id: str, job_id: str, others: dict[str, str]
) -> None:
    problem(client.post("/jobs", json={"series": series_id}, headers=others), 404, "series-not-found")
    own = client.post("/series", json={"name": "run"}, headers=others).json()
    jump = {"step": 10, "job": job_id}
    problem(client.post(f"/series/{own['id']}/jumps", json=jump, headers=others), 404, "job-not-found")


def test_lists_hold_nothing_of_another_tenant(
    client: TestClient, series_id: str, job_id: str, others: dict[str, str]
) -> None:
    for path in ("/series", "/jobs", "/jobs?state=succeeded"):
        assert client.get(path, headers=others).json() == {"items": [], "next_cursor": None}
    beyond = client.get("/jobs", params={"cursor": job_id}, headers=others)
    assert beyond.json()["items"] == []


def test_an_idempotency_key_is_the_tenants_own(
    client: TestClient, series_id: str, others: dict[str, str]
) -> None:
    once = {"Idempotency-Key": "once"}
    mine = client.post("/jobs", json={"series": series_id, "method": LINE}, headers=once).json()
    their_series = client.post("/series", json={"name": "run"}, headers=others).json()["id"]
    for step in (10, 20):
        folder = f"/series/{their_series}/checkpoints/{step}"
        client.put(f"{folder}/adapter_config.json", content=CONFIG, headers=others)
        client.put(f"{folder}/adapter_model.safetensors", content=model_bytes(step), headers=others)
    theirs = client.post("/jobs", json={"series": their_series, "method": LINE}, headers=others | once)
    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine["id"]


def test_the_same_bytes_are_two_blobs_of_two_tenants(
    client: TestClient, settings: ServiceSettings, series_id: str, others: dict[str, str]
) -> None:
    their_series = client.post("/series", json={"name": "run"}, headers=others).json()["id"]
    path = f"/series/{their_series}/checkpoints/10/adapter_model.safetensors"
    info = client.put(path, content=model_bytes(10), headers=others).json()
    kept = (settings.store.data_dir / "blobs").rglob(info["sha256"])
    assert {Path(blob).parents[1].name for blob in kept} == {"tests", "others"}


def test_a_uri_leads_to_nothing_that_the_server_keeps(
    client: TestClient, settings: ServiceSettings, store: Store, series_id: str, finish: Finish
) -> None:
    """Not even where the data folder lies below a folder that may be read, as the embedded server's does."""
    ids = [client.post("/jobs", json={"series": series_id, "method": LINE}).json()["id"] for _ in range(2)]
    for job_id in ids:
        finish(job_id)
    data = settings.store.data_dir
    references = [{"uri": f"file://{data}/jobs/{job_id}/1", "step": step} for step, job_id in enumerate(ids)]
    open_wide = replace(settings, file_roots=(data.parent,))
    with TestClient(create_app(open_wide), headers=dict(client.headers)) as caller:
        answer = caller.post("/jobs", json={"checkpoints": references, "method": LINE})
    problem(answer, 422, "refused-uri")
