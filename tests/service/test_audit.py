"""The audit log: who did what, and never with what key."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes

from nextrapolate_service.app import create_app
from nextrapolate_service.audit import AuditLog
from nextrapolate_service.settings import RateLimit, ServiceSettings
from nextrapolate_store.keys import Scope
from nextrapolate_store.store import Store

Finish = Callable[[str], dict[str, bytes]]

LINE = {"name": "weight-extrapolation"}


def noted(settings: ServiceSettings) -> list[dict[str, Any]]:
    files = sorted((settings.store.data_dir / "audit").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_each_change_has_a_line_that_says_who_and_what(
    client: TestClient, settings: ServiceSettings, uploaded_series: str
) -> None:
    before = datetime.now(UTC)
    answer = client.post(
        "/jobs", json={"series": uploaded_series, "method": LINE}, headers={"X-Request-Id": "r-1"}
    )
    job_id = answer.json()["id"]
    client.post(f"/jobs/{job_id}/cancel")
    begun, *uploads, submitted, cancelled = noted(settings)
    assert (begun["did"], begun["made"]) == ("create_series", f"/series/{uploaded_series}")
    assert len(uploads) == 6
    assert uploads[0]["did"] == "put_checkpoint_file"
    assert uploads[0]["ids"] == {"series_id": uploaded_series, "step": "10", "file": "adapter_config.json"}
    at = datetime.fromisoformat(submitted.pop("at"))
    assert before - timedelta(seconds=1) < at < datetime.now(UTC) + timedelta(seconds=1)
    assert submitted == {
        "key": "tests",
        "tenant": "tests",
        "address": "testclient",
        "did": "create_job",
        "ids": {},
        "status": 202,
        "made": f"/jobs/{job_id}",
        "problem": None,
        "request_id": "r-1",
    }
    assert (cancelled["did"], cancelled["ids"]) == ("cancel_job", {"job_id": job_id})


def test_looking_is_not_noted_and_downloading_is(
    client: TestClient, settings: ServiceSettings, series_id: str, finish: Finish
) -> None:
    job_id = client.post("/jobs", json={"series": series_id, "method": LINE}).json()["id"]
    finish(job_id)
    before = len(noted(settings))
    for path in ("/jobs", f"/jobs/{job_id}", "/series", f"/series/{series_id}", "/methods", "/readyz"):
        assert client.get(path).is_success
    client.get("/jobs/nope")
    assert len(noted(settings)) == before
    client.get(f"/jobs/{job_id}/adapter/adapter_model.safetensors")
    (download,) = noted(settings)[before:]
    assert (download["did"], download["status"]) == ("get_adapter_file", 200)


def test_refusals_are_noted_where_it_is_known_whose_they_are(
    client: TestClient, settings: ServiceSettings, store: Store
) -> None:
    record, reader = store.keys.create("lab", [Scope.READ])
    client.post("/series", json={"name": "run"}, headers={"Authorization": f"Bearer {reader}"})
    client.post("/jobs/nope/cancel")
    client.post("/series", json={"name": "run"}, headers={"Authorization": "Bearer nx_lab_" + "0" * 64})
    lacking, missing = noted(settings)
    assert (lacking["key"], lacking["tenant"]) == (record.id, "lab")
    assert (lacking["status"], lacking["problem"]) == (403, "scope-missing")
    assert (missing["status"], missing["problem"]) == (404, "job-not-found")


def test_a_caller_who_is_told_to_slow_down_fills_no_log(settings: ServiceSettings, api_key: str) -> None:
    limited = replace(settings, rate_limit=RateLimit(per_second=1e-3, at_once=1))
    with TestClient(create_app(limited), headers={"Authorization": f"Bearer {api_key}"}) as client:
        for _ in range(5):
            client.post("/series", json={"name": "run"})
            client.get("/jobs/nope/report")
    assert [line["status"] for line in noted(settings)] == [201]


def test_a_mistake_of_ours_is_noted_without_a_status(settings: ServiceSettings, api_key: str) -> None:
    app = create_app(settings)
    headers = {"Authorization": f"Bearer {api_key}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        app.state.settings = None
        assert client.post("/series", json={"name": "run"}).status_code == 500
    (line,) = noted(settings)
    assert (line["did"], line["status"], line["made"]) == ("create_series", None, None)


def test_no_secret_is_ever_in_it(client: TestClient, settings: ServiceSettings, api_key: str) -> None:
    secret = api_key.rsplit("_", 1)[1]
    client.post(f"/jobs/{api_key}/cancel?key={api_key}", json={"key": api_key})
    client.post("/series", json={"name": api_key}, headers={"X-Request-Id": api_key, "Cookie": api_key})
    first, second = noted(settings)
    assert (first["ids"], second["request_id"]) == ({"job_id": "nx_..."}, "nx_...")
    assert secret[:16] not in json.dumps([first, second])


def test_a_line_is_one_line_whatever_is_in_the_path(client: TestClient, settings: ServiceSettings) -> None:
    client.post("/jobs/a%0A%7B%22did%22%3A%201%7D%0A/cancel")
    client.post(f"/jobs/{'x' * 9000}/cancel")
    newlines, long = noted(settings)
    assert newlines["ids"]["job_id"] == 'a\n{"did": 1}\n'
    assert len(long["ids"]["job_id"]) == 128


def test_a_slow_disk_holds_up_nobody_but_whoever_is_noted(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, written = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> None:
        begun.set()
        assert written.wait(60)

    monkeypatch.setattr(AuditLog, "note", slow)
    with ThreadPoolExecutor(1) as pool:
        noted_one = pool.submit(client.post, "/series", json={"name": "run"})
        assert begun.wait(60)
        assert client.get("/livez").is_success
        assert not noted_one.done()
        written.set()
        assert noted_one.result(60).status_code == 201


def test_a_line_that_was_written_in_part_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "deployment").touch()
    monkeypatch.setattr("os.write", lambda descriptor, data: len(data) // 2)
    AuditLog(tmp_path, keep_days=1).note(did="nothing")
    assert "only a part of the line was written" in caplog.text
    assert "nothing" in caplog.text


def test_lines_of_many_at_once_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "deployment").touch()
    logs = [AuditLog(tmp_path, keep_days=1) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda number: logs[number % 8].note(number=number, text="x" * 300), range(800)):
            pass
    files = list((tmp_path / "audit").iterdir())
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert sorted(json.loads(line)["number"] for line in lines) == list(range(800))
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_days_that_are_over_are_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    folder.mkdir()
    today = datetime.now(UTC)
    days = {days: folder / f"{today - timedelta(days=days):%Y-%m-%d}.host.jsonl" for days in (1, 30, 32)}
    for file in days.values():
        file.write_text("{}\n")
    (tmp_path / "deployment").touch()
    AuditLog(tmp_path, keep_days=30).note(did="nothing")
    assert [age for age, file in days.items() if file.exists()] == [1, 30]


def test_a_clock_that_has_gone_ahead_a_year_takes_no_day_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    folder.mkdir()
    before = folder / f"{datetime.now(UTC) - timedelta(days=365):%Y-%m-%d}.host.jsonl"
    before.write_text("{}\n")
    (tmp_path / "deployment").touch()
    AuditLog(tmp_path, keep_days=30).note(did="nothing")
    assert before.exists()


def test_a_log_that_cannot_be_written_stops_nobody(
    client: TestClient, settings: ServiceSettings, caplog: pytest.LogCaptureFixture
) -> None:
    (settings.store.data_dir / "audit").write_text("in the way")
    assert client.post("/series", json={"name": "run"}).status_code == 201
    assert "the audit log cannot be written" in caplog.text
    assert "create_series" in caplog.text


def test_what_was_refused_and_what_was_kept_are_told_apart(
    client: TestClient, settings: ServiceSettings, series_id: str
) -> None:
    client.put(f"/series/{series_id}/checkpoints/70/adapter_model.safetensors", content=model_bytes()[:-1])
    client.put(f"/series/{series_id}/checkpoints/70/adapter_config.json", content=CONFIG)
    broken, good = noted(settings)[-2:]
    assert (broken["status"], broken["problem"]) == (422, "broken-adapter")
    assert (good["status"], good["problem"]) == (200, None)
