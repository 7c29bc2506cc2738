"""POST /jobs with a task other than an extrapolation."""

import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.problems import problem


def test_a_backtest_reads_up_to_what_it_predicts(client: TestClient, series_id: str) -> None:
    body = {"task": "backtest", "series": series_id, "at": 10, "horizon_steps": 10}
    answer = client.post("/jobs", json=body)
    assert answer.status_code == 202
    job = answer.json()
    assert (job["task"], job["steps"]) == ("backtest", [10, 20])
    assert (job["method"], job["output"], job["gate"]) == (None, None, None)
    assert (job["at"], job["horizon_steps"], job["methods"]) == (10, 10, None)
    assert client.get(f"/jobs/{job['id']}").json() == job


def test_a_backtest_tells_its_methods(client: TestClient, series_id: str) -> None:
    methods = [{"name": "expo", "alpha": 1.5}, {"name": "none"}]
    body = {"task": "backtest", "series": series_id, "at": 10, "horizon_steps": 10, "methods": methods}
    client.post("/jobs", json=body)
    (job,) = client.get("/jobs").json()["items"]
    assert [(method["name"], method["alpha"]) for method in job["methods"]] == [("expo", 1.5), ("none", 1.0)]


def test_an_inspection_takes_what_there_is(client: TestClient, series_id: str) -> None:
    job = client.post("/jobs", json={"task": "inspect", "series": series_id}).json()
    assert (job["task"], job["steps"]) == ("inspect", [10, 20, 60])


def test_a_body_without_a_task_asks_for_an_extrapolation(client: TestClient, series_id: str) -> None:
    job = client.post("/jobs", json={"series": series_id}).json()
    assert job["task"] == "extrapolate"
    assert job["method"]["name"]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"task": "backtest", "at": 15, "horizon_steps": 5}, "missing-checkpoint", "10, 20"),
        ({"task": "backtest", "at": 10, "horizon_steps": 30}, "missing-checkpoint", "step 40"),
        ({"task": "inspect", "until": 20}, "too-few-checkpoints", "at least 3"),
        ({"task": "backtest"}, "invalid-request", "at"),
        ({"task": "backtest", "at": 10, "methods": []}, "invalid-request", "methods"),
        ({"task": "inspect", "method": {"name": "next"}}, "invalid-request", "method"),
        ({"task": "guess"}, "invalid-request", "no task 'guess': use extrapolate, backtest or inspect"),
        ({"task": "backtest", "at": 10, "methods": [{"name": "nxt"}]}, "invalid-request", "methods.0.name"),
        (
            {"task": "backtest", "at": 10, "methods": [{"name": "expo", "window": 1}]},
            "invalid-request",
            "expo has no such parameter",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    client: TestClient, series_id: str, body: dict[str, object], code: str, words: str
) -> None:
    found = problem(client.post("/jobs", json={"series": series_id, **body}), 422, code)
    assert words in found.model_dump_json()


def test_a_backtest_at_step_0_is_refused(client: TestClient, series_id: str) -> None:
    folder = f"/series/{series_id}/checkpoints/0"
    assert client.put(f"{folder}/adapter_config.json", content=CONFIG).is_success
    assert client.put(f"{folder}/adapter_model.safetensors", content=model_bytes(0)).is_success
    body = {"task": "backtest", "series": series_id, "at": 0, "horizon_steps": 10}
    found = problem(client.post("/jobs", json=body), 422, "too-few-checkpoints")
    assert "choose a later step" in found.model_dump_json()


def test_the_task_of_a_job_is_in_the_schema(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert {"JobCreate", "BacktestCreate", "InspectCreate"} <= schemas.keys()


def test_the_report_of_each_task_and_the_webhook_are_in_the_schema(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    shown = document["paths"]["/jobs/{job_id}/report"]["get"]["responses"]["200"]
    reports = shown["content"]["application/json"]["schema"]["discriminator"]["mapping"]
    assert reports.keys() == {"extrapolate", "backtest", "inspect"}
    told = document["webhooks"]["job-ended"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {*reports.values(), told["$ref"]} <= {
        f"#/components/schemas/{name}" for name in document["components"]["schemas"]
    }
