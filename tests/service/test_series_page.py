"""The page of a run: what has arrived, what was measured, and how the run is judged by it."""

import re
from collections.abc import Callable

from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.page_forms import Forms
from fixtures.reports import extrapolation, inspection

from nextrapolate.methods import make_method
from nextrapolate.schemas import AnyReport

Finish = Callable[..., dict[str, bytes]]


def test_a_series_shows_what_arrived_and_asks_for_an_inspection(
    browser: TestClient, client: TestClient, series_id: str
) -> None:
    client.put(f"/series/{series_id}/checkpoints/70/adapter_config.json", content=CONFIG)
    page = browser.get(f"/series/{series_id}")
    assert "1 is not complete yet" in page.text
    assert "adapter_model.safetensors has not arrived" in page.text
    form = Forms(page.text).to("/jobs")
    assert form["inspect"] == series_id
    answer = browser.post("/jobs", data=form)
    assert answer.status_code == 422
    assert "checkpoint 70" in answer.text


def test_a_run_of_one_checkpoint_is_not_spoken_of_as_many(browser: TestClient, client: TestClient) -> None:
    series = client.post("/series", json={"name": "short"}).json()["id"]
    client.put(f"/series/{series}/checkpoints/10/adapter_config.json", content=CONFIG)
    client.put(f"/series/{series}/checkpoints/10/adapter_model.safetensors", content=model_bytes(10))
    page = browser.get(f"/series/{series}").text
    assert "1 checkpoint has arrived, up to step 10; it is complete." in page
    assert "<p>None yet.</p>" in page
    assert "Arrived so far: 1 checkpoint, at step 10." in browser.get(f"/series/{series}/ask").text


def test_a_series_shows_the_geometry_that_a_job_measured(
    browser: TestClient, client: TestClient, series_id: str, finish: Finish
) -> None:
    job = client.post("/jobs", json={"task": "inspect", "series": series_id}).json()["id"]
    finish(job, report=inspection(steps=(10, 20, 60)))
    page = browser.get(f"/series/{series_id}").text
    assert "Extrapolation should pay on this run: autoregression, asked at step 100" in page
    assert page.count("<meter") == 6
    assert "Inspect again" in page
    assert "all of them are complete" in page


def test_a_series_shows_the_most_complete_geometry_and_its_tone(
    browser: TestClient, client: TestClient, series_id: str, finish: Finish
) -> None:
    def inspect(steps: tuple[int, ...], relative_error: float) -> str:
        request = {"task": "inspect", "series": series_id, "until": steps[-1]}
        job = str(client.post("/jobs", json=request).json()["id"])
        found = inspection(steps=steps)
        assert found.evidence is not None
        total = found.evidence.total.model_copy(update={"relative_error": relative_error})
        evidence = found.evidence.model_copy(update={"total": total})
        finish(job, report=found.model_copy(update={"evidence": evidence}))
        return job

    def shown() -> tuple[str, str | None]:
        page = browser.get(f"/series/{series_id}").text
        banner = re.search(r'<div class="banner ([a-z]*)">.*?(?:/jobs/(\w+)|</div>)', page, re.DOTALL)
        assert banner
        return banner[1], banner[2]

    assert shown() == ("", None)
    folder = f"/series/{series_id}/checkpoints/70"
    client.put(f"{folder}/adapter_config.json", content=CONFIG)
    client.put(f"{folder}/adapter_model.safetensors", content=model_bytes(70))
    whole = inspect((10, 20, 60, 70), relative_error=1.2)
    inspect((10, 20, 60), relative_error=0.5)
    assert shown() == ("bad", whole)
    newer = inspect((10, 20, 60, 70), relative_error=0.5)
    assert shown() == ("good", newer)


def test_a_run_is_judged_by_its_inspection_and_else_by_a_forecast_that_is_named(
    browser: TestClient, client: TestClient, series_id: str, finish: Finish
) -> None:
    def judged(report: AnyReport, **request: object) -> str:
        job = client.post("/jobs", json={"task": report.task, "series": series_id, **request}).json()["id"]
        finish(job, report=report)
        return browser.get(f"/series/{series_id}").text

    def extrapolated(name: str, target_step: int) -> str:
        report = extrapolation(steps=(10, 20, 30, 40, 50, 60))
        made = {"method": make_method(name), "target_step": target_step}
        return judged(report.model_copy(update=made), method={"name": name})

    page = extrapolated("none", 60)
    assert '<div class="banner ">' in page
    assert "Nothing was added" not in page
    assert "Not a forecast" not in page
    assert "Measured by <a" in page
    assert "Inspect: measure" in page
    assert "By relex, to step 110: <strong>✓ Jump recommended.</strong>" in extrapolated("relex", 110)
    assert "By expo: <strong>" in extrapolated("expo", 110)
    inspected = "<p><strong>✓ Worth extrapolating.</strong>"
    assert inspected in judged(inspection(steps=(10, 20, 60)))
    assert inspected in extrapolated("none", 60)
