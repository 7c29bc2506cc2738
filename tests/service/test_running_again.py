"""The form in which a job is run again: what it holds at first, and what it still holds once refused."""

import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.page_forms import Forms

from nextrapolate.schemas import BacktestCreate, ExpoMethod, WeightExtrapolationMethod
from nextrapolate_store.store import Store


def _submit(client: TestClient, **request: object) -> str:
    answer = client.post("/jobs", json=request)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize("request_", [{"method": {"name": "expo"}}, {"task": "inspect"}])
def test_checkpoints_that_arrived_since_are_not_taken_along(
    browser: TestClient, client: TestClient, series_id: str, request_: dict[str, object]
) -> None:
    job = _submit(client, series=series_id, **request_)
    folder = f"/series/{series_id}/checkpoints/70"
    client.put(f"{folder}/adapter_config.json", content=CONFIG)
    client.put(f"{folder}/adapter_model.safetensors", content=model_bytes(70))
    form = Forms(browser.get(f"/jobs/{job}/again").text).to("/jobs")
    assert form["until"] == "60"
    again = client.get(browser.post("/jobs", data=form).headers["Location"]).json()
    assert again["steps"] == [10, 20, 60]
    all_of_them = browser.post("/jobs", data={**form, "until": "", "once": ""})
    assert client.get(all_of_them.headers["Location"]).json()["steps"] == [10, 20, 60, 70]


def test_a_default_that_hangs_on_another_parameter_is_not_entered(
    browser: TestClient, client: TestClient, series_id: str
) -> None:
    def rerun(job: str, **entered: str) -> dict[str, object]:
        form = Forms(browser.get(f"/jobs/{job}/again").text).to("/jobs")
        sent = browser.post("/jobs", data={**form, "until": "", **entered})
        method: dict[str, object] = client.get(sent.headers["Location"]).json()["method"]
        return method

    # The paper's predictor learns from pairs one horizon apart: 10 and 20 are.
    first = _submit(client, series=series_id, method={"name": "next", "horizon_steps": 10})
    paper = rerun(first, **{"method.preset": "paper"})
    assert (paper["preset"], paper["alpha"], paper["horizon_steps"]) == ("paper", 1.5, 10)
    second = _submit(client, series=series_id, method=paper)
    assert rerun(second)["alpha"] == 1.5
    assert rerun(second, **{"method.preset": "default"})["alpha"] == 1.0
    assert rerun(second, **{"method.alpha": "1.0"})["alpha"] == 1.0


def test_a_refused_form_keeps_what_was_entered(
    browser: TestClient, client: TestClient, series_id: str
) -> None:
    job = _submit(client, series=series_id, method={"name": "next", "horizon_steps": 10})
    form = Forms(browser.get(f"/jobs/{job}/again").text).to("/jobs")
    entered = {
        "output.rank": "grow",
        "output.dtype": "bfloat16",
        "gate.min_energy_ratio": "0.3",
        "until": "15",
        "method.seed": "7",
    }
    del form["method.use_local"]
    refused = browser.post("/jobs", data={**form, **entered})
    assert refused.status_code == 422
    kept = Forms(refused.text).to("/jobs")
    assert {name: kept[name] for name in entered} == entered
    assert "method.use_local" not in kept


def test_a_refused_backtest_keeps_what_was_entered(
    browser: TestClient, client: TestClient, series_id: str
) -> None:
    methods = [{"name": "expo"}, {"name": "none"}]
    job = _submit(client, task="backtest", series=series_id, at=20, horizon_steps=40, methods=methods)
    form = Forms(browser.get(f"/jobs/{job}/again").text).to("/jobs")
    refused = browser.post("/jobs", data={**form, "at": "10", "horizon_steps": "35", "methods": ["expo"]})
    assert refused.status_code == 422
    kept = Forms(refused.text).to("/jobs")
    assert (kept["at"], kept["horizon_steps"], kept["methods"]) == ("10", "35", "expo")


def test_a_method_that_was_asked_twice_is_asked_twice_again(
    browser: TestClient, client: TestClient, series_id: str, store: Store
) -> None:
    line = {"name": "weight-extrapolation"}
    methods = [{**line, "window_steps": 10}, {"name": "none"}, {**line, "window_steps": 20}]
    job = _submit(client, task="backtest", series=series_id, at=20, horizon_steps=40, methods=methods)
    form = Forms(browser.get(f"/jobs/{job}/again").text).to("/jobs")
    chosen = ["weight-extrapolation", "expo"]
    again = browser.post("/jobs", data={**form, "methods": chosen}).headers["Location"]
    asked = store.jobs.get("tests", again.removeprefix("/jobs/")).request
    assert isinstance(asked, BacktestCreate)
    twice = [WeightExtrapolationMethod(window_steps=steps) for steps in (10, 20)]
    assert asked.methods == [*twice, ExpoMethod()]
