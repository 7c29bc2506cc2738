"""The pages as they are sent: to whom, with which headers."""

import hashlib
import hmac
import html
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from fixtures.page_forms import Forms
from fixtures.read_reports import CASES
from fixtures.reports import comparison, extrapolation

from nextrapolate.methods import METHODS
from nextrapolate.schemas import Delivery, JobError, Stage, WebhookState
from nextrapolate_service.pages.negotiation import asks_for_html
from nextrapolate_service.pages.wording import duration, situation, webhook
from nextrapolate_service.sessions import FORM_TOKEN
from nextrapolate_service.views import job_view
from nextrapolate_store.keys import Scope
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quota

HOSTILE = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>"

Finish = Callable[..., dict[str, bytes]]


@pytest.fixture
def job_id(client: TestClient, series_id: str) -> str:
    request = {"series": series_id, "method": {"name": "weight-extrapolation"}, "labels": {"run": HOSTILE}}
    return str(client.post("/jobs", json=request).json()["id"])


def test_an_address_gives_its_page_to_browsers_and_json_to_everybody_else(
    browser: TestClient, client: TestClient, series_id: str, job_id: str
) -> None:
    for path in (f"/jobs/{job_id}", "/jobs", f"/series/{series_id}", "/series", "/methods"):
        page = browser.get(path)
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert page.headers["Vary"] == "Accept"
        for accept in ("*/*", "application/json", "application/json, text/html;q=0.5", "text/html;q=0", ""):
            answer = client.get(path, headers={"Accept": accept})
            assert answer.headers["Content-Type"] == "application/json", accept


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/html", True),
        ("TEXT/HTML; charset=utf-8", True),
        ("application/json;q=0.9, text/html", True),
        ("text/html;q=0.8, application/json", False),
        ("text/html;q=nonsense", False),
        ("text/*", False),
        ("*/*", False),
    ],
)
def test_html_is_what_names_it(accept: str, wanted: bool) -> None:
    assert asks_for_html({"type": "http", "headers": [(b"accept", accept.encode())]}) is wanted


def test_every_page_runs_nothing_but_our_own_files(
    browser: TestClient, series_id: str, job_id: str, finish: Finish
) -> None:
    finish(job_id, report=extrapolation(name=HOSTILE))
    papers = {method.source.url for method in METHODS.values()}
    pages = [
        "/",
        f"/jobs/{job_id}",
        f"/jobs/{job_id}/again",
        f"/jobs/{job_id}/report",
        f"/series/{series_id}",
        f"/series/{series_id}/ask",
        f"/series/{series_id}/ask?task=backtest",
    ]
    pages += ["/series", "/methods", f"/compare?jobs={job_id},{job_id}", "/login", "/jobs/nope", "/nowhere"]
    for path in pages:
        page = browser.get(path)
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert "<script>" not in page.text, path
        assert "<img" not in page.text, path
        assert " style=" not in page.text, path
        outside = [link for link in re.findall(r'(?:src|href|action)="([^"]+)"', page.text) if ":" in link]
        assert set(outside) <= papers, path


def test_a_session_may_look_but_not_change_through_the_api(browser: TestClient, job_id: str) -> None:
    json = {"Accept": "application/json"}
    assert browser.get(f"/jobs/{job_id}", headers=json).status_code == 200
    for path in (f"/jobs/{job_id}/cancel", "/jobs", "/series"):
        assert browser.post(path, headers=json, json={}).status_code == 401


def test_a_job_that_its_tenants_quota_holds_back_says_so(
    browser: TestClient, client: TestClient, series_id: str, job_id: str, store: Store
) -> None:
    store.quotas.set("tests", {Quota.RUNNING_JOBS: 1})
    waiting = client.post("/jobs", json={"series": series_id}).json()["id"]
    assert "Waiting for a worker. 1 job is ahead of it." in browser.get(f"/jobs/{waiting}").text
    assert store.jobs.claim(job_id, worker="test") is not None
    assert "Waiting for a worker. It is next." in browser.get(f"/jobs/{waiting}").text
    for _ in range(2):  # told twice, it is no more
        assert store.jobs.claim(waiting, worker="test") is None
    text = html.unescape(browser.get(f"/jobs/{waiting}").text)
    assert "Waiting: its tenant's maximum of running jobs is reached." in text
    assert text.count("It waits: its tenant's maximum of running jobs (1) is reached.") == 1


def test_a_job_that_is_claimed_while_its_page_is_made_is_not_said_to_be_held_back(
    store: Store, job_id: str
) -> None:
    record = store.jobs.get("tests", job_id)
    assert store.jobs.claim(job_id, worker="test") is not None
    job, events = job_view(store, record), store.jobs.events(job_id, None)
    assert situation(job, events) == "Waiting for a worker."
    assert situation(job, events[:1]) == "Waiting for a worker."


def test_a_timeline_tells_stages_and_not_each_step_of_progress(
    browser: TestClient, job_id: str, store: Store
) -> None:
    claim = store.jobs.claim(job_id, worker="test")
    assert claim is not None
    for progress in (0.1, 0.2):
        store.jobs.beat(job_id, claim.fence, stage=Stage.EXTRACT, progress=progress)
    text = browser.get(f"/jobs/{job_id}").text
    assert text.count("<li><time") == 3  # submitted, claimed, extracting


def test_a_key_that_may_not_write_is_offered_nothing_and_told_so(
    visitor: TestClient, store: Store, job_id: str, series_id: str
) -> None:
    _, reader = store.keys.create("tests", [Scope.READ])
    visitor.post("/login", data={"key": reader})
    for page in (f"/jobs/{job_id}", f"/series/{series_id}"):
        text = visitor.get(page).text
        assert Forms(text).forms == [("/logout", {})] + [("/compare", {})] * ("series" in page)
        assert "Run again" not in text
        assert "/ask" not in text
    (token,) = visitor.cookies.values()
    form = {FORM_TOKEN: hmac.new(token.encode(), b"form", hashlib.sha256).hexdigest()}
    for refused in (
        visitor.get(f"/jobs/{job_id}/again"),
        visitor.get(f"/series/{series_id}/ask"),
        visitor.post(f"/jobs/{job_id}/cancel", data=form),
    ):
        assert refused.status_code == 403
        assert "this call needs write" in refused.text


def test_a_key_that_may_not_read_is_not_let_in(visitor: TestClient, store: Store) -> None:
    _, monitor = store.keys.create("tests", [Scope.METRICS])
    answer = visitor.post("/login", data={"key": monitor})
    assert answer.status_code == 403
    assert "This key allows only metrics, and no page" in answer.text
    assert "Set-Cookie" not in answer.headers


def test_another_tenants_pages_are_not_there(
    visitor: TestClient, store: Store, job_id: str, series_id: str
) -> None:
    _, stranger = store.keys.create("stranger", [Scope.WRITE])
    visitor.post("/login", data={"key": stranger})
    assert job_id not in visitor.get("/").text
    for path in (
        f"/jobs/{job_id}",
        f"/jobs/{job_id}/again",
        f"/jobs/{job_id}/report",
        f"/series/{series_id}",
    ):
        assert visitor.get(path).status_code == 404
    assert visitor.get(f"/compare?jobs={job_id}").status_code == 404


def test_flags_and_small_files_are_written_for_people(
    browser: TestClient, client: TestClient, series_id: str, job_id: str
) -> None:
    assert '<th scope="row">momentum</th><td>no</td>' in browser.get(f"/jobs/{job_id}").text
    assert re.search(r"<td class=\"number\">\d+ B</td>", browser.get(f"/series/{series_id}").text)
    for path in ("/", f"/series/{series_id}"):
        assert '<th scope="col" aria-label="selected">' in browser.get(path).text


def test_the_pages_of_a_job_say_what_its_report_says(
    browser: TestClient, client: TestClient, series_id: str, job_id: str, finish: Finish
) -> None:
    finish(job_id, report=extrapolation())
    page = browser.get(f"/jobs/{job_id}").text
    for told in (
        "Did it work?",
        "came 40% closer than no jump",
        "Open the report",
        "adapter_model.safetensors",
    ):
        assert told in page
    assert "data-renew-seconds" not in page
    other = client.post(
        "/jobs", json={"task": "backtest", "series": series_id, "at": 20, "horizon_steps": 40}
    )
    finish(other.json()["id"], report=comparison())
    compared = browser.get("/compare", params={"jobs": [job_id, other.json()["id"]]}).text
    assert "Comparison of 1 job<" in browser.get("/compare", params={"jobs": job_id}).text
    for told in ("Comparison of 2 jobs", "weight-extrapolation", "relative error", "0.6", "differs"):
        assert told in compared


def test_a_backtest_is_compared_by_the_best_that_a_backtest_can_judge(
    browser: TestClient, client: TestClient, series_id: str, finish: Finish
) -> None:
    asked = {"task": "backtest", "series": series_id, "at": 20, "horizon_steps": 40}
    job_id = client.post("/jobs", json=asked).json()["id"]
    finish(job_id, report=CASES["won, an average closer"].report)
    page = browser.get("/compare", params={"jobs": job_id}).text
    (row,) = re.findall(r"<tr[^>]*>(?:(?!</tr>).)*relative error \(no jump is 1\).*?</tr>", page, re.DOTALL)
    assert re.findall(r"\d\.\d+", row) == ["0.6"]


def test_backtests_are_told_apart_by_what_was_asked(
    browser: TestClient, client: TestClient, series_id: str
) -> None:
    asked = {"task": "backtest", "series": series_id, "at": 10, "horizon_steps": 50}
    of_all = client.post("/jobs", json=asked).json()["id"]
    other = {"at": 20, "horizon_steps": 40, "methods": [{"name": "expo", "alpha": 1.5}, {"name": "none"}]}
    of_two = client.post("/jobs", json=asked | other).json()["id"]
    page = browser.get(f"/jobs/{of_two}").text
    compared = browser.get("/compare", params={"jobs": f"{of_all},{of_two}"}).text
    facts = {"asked at step": (10, 20), "steps ahead": (50, 40), "methods": ("all", "expo alpha=1.5, none")}
    for name, (first, second) in facts.items():
        assert f"{name}</th><td>{second}</td>" in page
        assert f"<td>{first}</td><td>{second}</td>" in compared


def test_a_comparison_says_of_a_failed_job_why_it_failed_and_what_to_do(
    browser: TestClient, store: Store, job_id: str
) -> None:
    claim = store.jobs.claim(job_id, worker="test")
    assert claim is not None
    error = JobError(code="non-finite", detail="checkpoint 20 has NaN", blame="user")
    assert store.jobs.fail(job_id, claim.fence, error)
    page = browser.get("/compare", params={"jobs": job_id}).text
    assert "<td>checkpoint 20 has NaN</td>" in page
    assert "<td>Another attempt would end the same way" in page


def test_an_old_report_is_shown_as_far_as_it_can_be(browser: TestClient, job_id: str, finish: Finish) -> None:
    finish(job_id)
    assert "Run again" in browser.get(f"/jobs/{job_id}").text
    assert browser.get(f"/jobs/{job_id}/report").status_code == 404


def test_jobs_are_found_by_state_and_text(browser: TestClient, client: TestClient, series_id: str) -> None:
    def submit(run: str, method: str) -> str:
        request = {"series": series_id, "method": {"name": method}, "labels": {"run": run}}
        return str(client.post("/jobs", json=request).json()["id"])

    math, code = submit("math-7B", "expo"), submit("code-1B", "relex")
    client.post(f"/jobs/{code}/cancel")

    def found(**query: str) -> set[str]:
        page = browser.get("/", params=query).text
        return {job for job in (math, code) if job in page}

    assert found() == {math, code}
    assert found(text="MATH") == {math}
    assert found(text="relex") == {code}
    assert found(text=code) == {code}
    assert found(state="queued") == {math}
    assert found(state="cancelled", text="math") == set()
    assert "No such job" in browser.get("/", params={"text": "elsewhere"}).text
    assert found(state="") == {math, code}
    bogus = browser.get("/", params={"state": "nonsense"})
    assert bogus.status_code == 422
    assert "state: Input should be &#39;queued&#39;, &#39;running&#39;" in bogus.text
    assert "literal" not in bogus.text


def test_long_lists_are_read_page_by_page(browser: TestClient, client: TestClient, series_id: str) -> None:
    for number in range(30):
        request = {"series": series_id, "method": {"name": "expo"}, "labels": {"run": f"run-{number:02}"}}
        client.post("/jobs", json=request)
    first = browser.get("/", params={"text": "run-"}).text
    (older,) = re.findall(r'href="(/\?[^"]+)" rel="next"', first)
    second = browser.get(older.replace("&amp;", "&")).text
    seen = [set(re.findall(r"run-\d\d", page)) for page in (first, second)]
    assert (len(seen[0]), len(seen[1])) == (25, 5)
    assert not seen[0] & seen[1]


def test_what_is_not_there_is_a_page_for_browsers(browser: TestClient) -> None:
    answer = browser.get("/nowhere")
    assert answer.status_code == 404
    assert "there is nothing at this address" in answer.text
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert '<nav aria-label="Main">' in answer.text
    assert browser.get("/docs").status_code == 404


def test_a_report_leads_back_to_its_job(browser: TestClient, job_id: str, finish: Finish) -> None:
    finish(job_id, report=extrapolation())
    assert f'<a href="/jobs/{job_id}">Back to the job</a>' in browser.get(f"/jobs/{job_id}/report").text


def test_runs_of_one_name_are_told_apart(browser: TestClient, client: TestClient) -> None:
    runs = {
        seed: client.post("/series", json={"name": "grpo", "labels": {"seed": seed}}).json()["id"]
        for seed in ("seven", "eight")
    }
    page = browser.get("/series").text
    for seed, run in runs.items():
        assert f"<code>{run[-8:]}</code>" in page
        assert f"<bdi>seed: {seed}</bdi>" in page


def test_every_page_of_a_job_names_its_run_and_leads_to_it(
    browser: TestClient, client: TestClient, job_id: str
) -> None:
    series = client.get(f"/jobs/{job_id}").json()["series"]
    again = {"series": series, "method": {"name": "weight-extrapolation"}}
    unlabelled = client.post("/jobs", json=again).json()["id"]
    name = client.get(f"/series/{series}").json()["name"]
    pages = ("/", f"/jobs/{unlabelled}", f"/compare?jobs={job_id},{unlabelled}")
    link = f'href="/series/{series}"><bdi>{name}</bdi></a>'
    assert [link in browser.get(page).text for page in pages] == [True] * 3
    client.delete(f"/series/{series}")
    assert [f'href="/series/{series}"' in browser.get(page).text for page in pages] == [False] * 3
    assert f"<code>{series}</code>, deleted" in browser.get(pages[1]).text


def test_a_running_job_is_shown_anew_where_no_script_runs(browser: TestClient, job_id: str) -> None:
    again = '<noscript><meta http-equiv="refresh"'
    assert again in browser.get(f"/jobs/{job_id}").text
    cancel = f"/jobs/{job_id}/cancel"
    browser.post(cancel, data=Forms(browser.get(f"/jobs/{job_id}").text).to(cancel))
    assert again not in browser.get(f"/jobs/{job_id}").text


def test_a_new_version_brings_its_own_scripts(visitor: TestClient) -> None:
    first = visitor.get("/static/pages.js")
    assert first.headers["Cache-Control"] == "no-cache"
    known = {"If-None-Match": first.headers["ETag"]}
    assert visitor.get("/static/pages.js", headers=known).status_code == 304


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.7, "60 s"), (119.7, "120 s"), (121, "2 min"), (5400, "90 min"), (180000, "2 d")],
)
def test_durations_are_not_rounded_away(seconds: float, words: str) -> None:
    assert duration(timedelta(seconds=seconds)) == words


def test_a_webhook_that_was_not_reached_yet_is_said_to_be_tried_again() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    failed = Delivery(attempt=1, at=now, error="it answered 500", next_at=now)
    url = "https://example.com/hook"
    assert webhook(WebhookState(url=url, state="sending", deliveries=[])) == "It is being told."
    tried = WebhookState(url=url, state="sending", deliveries=[failed, failed])
    assert webhook(tried) == "Not told yet, after 2 attempts: it answered 500"


def test_a_running_job_makes_no_promises(
    browser: TestClient, client: TestClient, store: Store, job_id: str
) -> None:
    claim = store.jobs.claim(job_id, "test")
    assert claim is not None
    store.jobs.beat(job_id, claim.fence, stage=Stage.FIT, progress=0.5)
    page = browser.get(f"/jobs/{job_id}").text
    assert "Fitting the method." in page
    assert "to go" not in page
