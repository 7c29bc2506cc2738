"""Who is let in, to what, and how often."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fixtures.page_forms import BROWSER
from fixtures.problems import problem

from nextrapolate_service.app import create_app
from nextrapolate_service.auth import read_key_file
from nextrapolate_service.settings import RateLimit, ServiceSettings
from nextrapolate_store.keys import Scope, new_key
from nextrapolate_store.store import Store

NEVER = 1e-3
"""Requests a second, so few that no bucket fills up while a test runs."""
IDS = {"series_id": "x", "job_id": "x", "step": 1, "file": "adapter_config.json"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def operations(client: TestClient) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation that wants a key."""
    for path, described in client.get("/openapi.json").json()["paths"].items():
        for method, operation in described.items():
            if operation["security"]:
                yield method, path.format_map(IDS), operation


@pytest.mark.parametrize("scope", Scope)
def test_a_key_opens_the_endpoints_of_its_scopes_and_no_other(
    client: TestClient, store: Store, scope: Scope
) -> None:
    record, key = store.keys.create("tests", [scope])
    for method, path, operation in operations(client):
        ((needed,),) = (requirement["ApiKey"] for requirement in operation["security"])
        assert (needed == "read") == (method in ("get", "head")) or needed == "metrics", path
        answer = client.request(method, path, headers=bearer(key))
        if needed in record.scopes:
            assert answer.status_code not in (401, 403), (method, path)
        elif method != "head":
            found = problem(answer, 403, "scope-missing")
            assert f"--tenant tests --scope {needed}" in found.detail
            assert f'error="insufficient_scope", scope="{needed}"' in answer.headers["WWW-Authenticate"]


def test_a_revoked_key_is_refused_at_once(client: TestClient, store: Store) -> None:
    record, key = store.keys.create("tests", [Scope.READ])
    assert client.get("/jobs", headers=bearer(key)).is_success
    store.keys.revoke(record.id)
    found = problem(client.get("/jobs", headers=bearer(key)), 401, "key-revoked")
    assert record.id in found.detail
    assert client.get("/jobs").is_success


def test_the_key_of_the_file_can_be_revoked_and_stays_so(settings: ServiceSettings, api_key: str) -> None:
    for status in (200, 401):
        with TestClient(create_app(settings), headers=bearer(api_key)) as client:
            assert client.get("/jobs").status_code == status
            client.app.state.opening.store.keys.revoke("tests")  # type: ignore[attr-defined]


def test_a_key_of_the_file_that_opens_nothing_is_told_at_the_start(
    settings: ServiceSettings, api_key: str, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(create_app(settings), headers=bearer(api_key)) as client:
        client.app.state.opening.store.keys.revoke("tests")  # type: ignore[attr-defined]
    assert not caplog.records
    with TestClient(create_app(settings)):
        pass
    assert "the key tests in the API key file was revoked" in caplog.text


def test_a_key_that_was_in_the_file_before_is_told_to_be_open(
    settings: ServiceSettings, api_key: str, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(create_app(settings), headers=bearer(api_key)) as client:
        client.app.state.opening.store.keys.create("lab", [Scope.READ])  # type: ignore[attr-defined]
    assert settings.api_key_file is not None
    settings.api_key_file.write_text(new_key("other"))
    with TestClient(create_app(settings)):
        pass
    [told] = [record.getMessage() for record in caplog.records]
    assert told.startswith("keys that were in the API key file before are still valid: tests. The one there")


def test_without_a_key_file_only_keys_that_were_made_are_let_in(
    settings: ServiceSettings, store: Store, api_key: str
) -> None:
    _, made = store.keys.create("lab", [Scope.READ])
    with TestClient(create_app(replace(settings, api_key_file=None))) as client:
        problem(client.get("/jobs", headers=bearer(api_key)), 401, "unauthorized")
        assert client.get("/jobs", headers=bearer(made)).is_success


def test_a_key_file_without_a_key_is_told_at_the_start(settings: ServiceSettings) -> None:
    assert settings.api_key_file is not None
    settings.api_key_file.write_text("password")
    with pytest.raises(ValueError, match="does not contain a key: a key is written nx_<id>_<secret>"):
        create_app(settings)
    settings.api_key_file.unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        read_key_file(settings.api_key_file)


def test_who_comes_too_often_is_told_when_to_come_back(
    settings: ServiceSettings, store: Store, api_key: str
) -> None:
    limited = replace(settings, rate_limit=RateLimit(per_second=NEVER, at_once=3))
    with TestClient(create_app(limited), headers=bearer(api_key)) as client:
        assert [client.get("/jobs").status_code for _ in range(3)] == [200, 200, 200]
        answer = client.post("/series", json={"name": "run"})
        found = problem(answer, 429, "rate-limited")
        assert found.retryable
        assert 900 < int(answer.headers["Retry-After"]) <= 1000
        assert "0.001 requests per second, 3 at once" in found.detail
        broken = client.post("/series", content=b"{", headers={"Content-Type": "application/json"})
        problem(broken, 429, "rate-limited")  # nobody has read it
        _, other = store.keys.create("tests", [Scope.READ])
        assert client.get("/jobs", headers=bearer(other)).is_success
        assert client.get("/livez").is_success
        problem(client.get("/jobs", headers=bearer("nx_tests_" + "0" * 64)), 401, "unauthorized")


def test_no_form_is_read_of_a_session_that_comes_too_often(settings: ServiceSettings, api_key: str) -> None:
    limited = replace(settings, rate_limit=RateLimit(per_second=NEVER, at_once=1))
    with TestClient(create_app(limited), headers=BROWSER, follow_redirects=False) as browser:
        browser.post("/login", data={"key": api_key})
        assert browser.get("/").is_success
        too_many = {f"field{number}": "x" for number in range(1000)}
        assert browser.post("/jobs", data=too_many).status_code == 429


def test_a_wrong_key_uses_up_nobodys_requests(settings: ServiceSettings, api_key: str) -> None:
    limited = replace(settings, rate_limit=RateLimit(per_second=NEVER, at_once=1))
    with TestClient(create_app(limited)) as client:
        for _ in range(3):
            problem(client.get("/jobs", headers=bearer("nx_tests_" + "0" * 64)), 401, "unauthorized")
        assert client.get("/jobs", headers=bearer(api_key)).is_success


def test_the_rate_limit_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, settings: ServiceSettings
) -> None:
    assert RateLimit.from_environment() == settings.rate_limit
    monkeypatch.setenv("NEXTRAPOLATE_RATE_LIMIT", "2.5")
    monkeypatch.setenv("NEXTRAPOLATE_RATE_BURST", "7")
    assert RateLimit.from_environment() == RateLimit(per_second=2.5, at_once=7)
    monkeypatch.setenv("NEXTRAPOLATE_RATE_LIMIT", "0")
    assert RateLimit.from_environment() is None
    with pytest.raises(ValueError, match="would refuse everybody"):
        RateLimit(per_second=0, at_once=1)
