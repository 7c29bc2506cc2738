"""Quotas as callers meet them: which one, how much of it is used, and what to do."""

from collections.abc import Callable, Iterator
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
from nextrapolate_store.tenants import Quota, Quotas

Finish = Callable[[str], dict[str, bytes]]

MODEL = "adapter_model.safetensors"
LINE = {"name": "weight-extrapolation"}


def quota_problem(answer: Any, status: int, quota: Quota, used: int, limit: int) -> str:
    found = problem(answer, status, "quota-exceeded")
    assert found.retryable == (status == 429)
    assert ("Retry-After" in answer.headers) == (status == 429)
    (error,) = found.errors
    assert (error["quota"], error["used"], error["limit"]) == (quota, used, limit)
    assert f"tenants set tests --{quota.replace('_', '-')} N" in found.detail
    return found.detail


def test_too_many_series(client: TestClient, store: Store, series_id: str) -> None:
    store.quotas.set("tests", {Quota.SERIES: 1})
    detail = quota_problem(client.post("/series", json={"name": "run"}), 403, Quota.SERIES, 1, 1)
    assert "it has 1 series, and the limit is 1: delete some" in detail
    assert [series["id"] for series in client.get("/series").json()["items"]] == [series_id]
    _, key = store.keys.create("others", [Scope.WRITE])
    others = {"Authorization": f"Bearer {key}"}
    assert client.post("/series", json={"name": "run"}, headers=others).status_code == 201
    assert client.delete(f"/series/{series_id}").status_code == 204
    problem(client.get(f"/series/{series_id}"), 404, "series-not-found")
    assert client.post("/series", json={"name": "run"}).status_code == 201


def test_too_many_kept_jobs(client: TestClient, store: Store, series_id: str) -> None:
    store.quotas.set("tests", {Quota.KEPT_JOBS: 1})
    body = {"series": series_id, "method": LINE}
    assert client.post(f"/jobs/{client.post('/jobs', json=body).json()['id']}/cancel").is_success
    quota_problem(client.post("/jobs", json=body), 403, Quota.KEPT_JOBS, 1, 1)


def test_too_many_queued_jobs(client: TestClient, store: Store, series_id: str, finish: Finish) -> None:
    store.quotas.set("tests", {Quota.QUEUED_JOBS: 1})
    body = {"series": series_id, "method": LINE}
    first = client.post("/jobs", json=body, headers={"Idempotency-Key": "1"}).json()
    assert client.post("/jobs", json=body, headers={"Idempotency-Key": "1"}).json()["id"] == first["id"]
    answer = client.post("/jobs", json=body, headers={"Idempotency-Key": "2"})
    assert "1 of its jobs are queued, and the limit is 1" in quota_problem(
        answer, 429, Quota.QUEUED_JOBS, 1, 1
    )
    quota_problem(client.post("/jobs", json=body), 429, Quota.QUEUED_JOBS, 1, 1)
    finish(first["id"])
    assert client.post("/jobs", json=body, headers={"Idempotency-Key": "2"}).status_code == 202


def test_no_bytes_left(
    client: TestClient, store: Store, settings: ServiceSettings, series_id: str, finish: Finish
) -> None:
    used = store.quotas.usage("tests")[Quota.BYTES].used
    content = model_bytes(80)
    assert used == 3 * len(content) + len(CONFIG)
    store.quotas.set("tests", {Quota.BYTES: used + len(content) - 1})
    folder = f"/series/{series_id}/checkpoints/80"
    detail = quota_problem(
        client.put(f"{folder}/{MODEL}", content=content), 403, Quota.BYTES, used, used + len(content) - 1
    )
    assert "this does not fit" in detail
    unannounced = client.put(f"{folder}/{MODEL}", content=iter([content]))
    quota_problem(unannounced, 403, Quota.BYTES, used, used + len(content) - 1)
    assert client.get(f"/series/{series_id}").json()["checkpoints"][-1]["step"] == 60
    # What is stored already takes no room, and is not refused.
    store.quotas.set("tests", {Quota.BYTES: used})
    assert client.put(f"/series/{series_id}/checkpoints/10/{MODEL}", content=model_bytes(10)).is_success
    digests = {"files": {"adapter_config.json": store_digest(client, series_id)}}
    assert client.post(folder, json=digests).json() == {"missing": []}
    body = {"series": series_id, "until": 60, "method": LINE}
    quota_problem(client.post("/jobs", json=body), 403, Quota.BYTES, used, used)
    store.quotas.set("tests", {Quota.BYTES: used + 1})
    job = client.post("/jobs", json=body)
    assert job.status_code == 202
    results = finish(job.json()["id"])
    total = used + sum(map(len, results.values()))
    assert store.quotas.usage("tests")[Quota.BYTES].used == total


def store_digest(client: TestClient, series_id: str) -> str:
    checkpoint = client.get(f"/series/{series_id}").json()["checkpoints"][0]
    return str(checkpoint["files"]["adapter_config.json"]["sha256"])


@pytest.fixture
def one_at_once(settings: ServiceSettings, api_key: str) -> Iterator[TestClient]:
    """A service that takes one upload of a tenant at a time."""
    narrow = replace(settings, quotas=Quotas(uploads=1))
    with TestClient(create_app(narrow), headers={"Authorization": f"Bearer {api_key}"}) as client:
        yield client


def test_too_many_uploads_at_once(one_at_once: TestClient, store: Store, settings: ServiceSettings) -> None:
    series_id = one_at_once.post("/series", json={"name": "run"}).json()["id"]
    path = f"/series/{series_id}/checkpoints/10/{MODEL}"
    with store.blobs.upload("tests"):
        detail = quota_problem(one_at_once.put(path, content=model_bytes()), 429, Quota.UPLOADS, 1, 1)
        assert "send fewer at once" in detail
        assert kept(settings) == []
    assert one_at_once.put(path, content=model_bytes()).is_success


def kept(settings: ServiceSettings) -> list[Path]:
    blobs = settings.store.data_dir / "blobs"
    return [path for path in blobs.rglob("*") if path.is_file() and not path.name.startswith(".")]
