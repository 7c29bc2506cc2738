"""What stays under people's hands while a page renews itself, in a real Chromium; and how wide pages are."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from fixtures.browser import Visit
from fixtures.reports import comparison, extrapolation, inspection
from fixtures.site import Site
from playwright.sync_api import Page, Route, expect

from nextrapolate.schemas import Stage
from nextrapolate_store.store import Store

pytestmark = pytest.mark.integration

Finish = Callable[..., dict[str, bytes]]
Submit = Callable[..., str]
LINE = {"name": "weight-extrapolation"}
LONG = "grpo_qwen2.5-7b-instruct_gsm8k_lr2e-5_bs256_n16_kl0.0_seed1234_node17_" * 3
FILTER = "Run, label, method or id"
OFTEN, SELDOM = 3_500, 15_500
"""Milliseconds after which a list has been asked for again, while something runs and while nothing does."""

_WIDTHS = "[document.documentElement.scrollWidth, innerWidth]"
_SCROLL = "document.querySelector('.scroll').scrollLeft"


def _open_with_its_time_held(visit: Visit, path: str) -> None:
    """Open a page on which time passes only when it is told to, however slow the machine."""
    visit.page.clock.install(time=0)
    visit.page.clock.pause_at(1)
    visit.open(path)


def _list_asked_for_again(page: Page, milliseconds: int) -> bool:
    """Let time pass on the page, and tell whether it asked the server for its list."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(milliseconds)
    page.wait_for_timeout(200)
    return page.url in asked


def _mark(page: Page, cell: str) -> None:
    """Select a cell's text, as somebody does who will copy it."""
    page.evaluate(f"getSelection().selectAllChildren(document.querySelector('{cell}'))")


def test_no_page_is_wider_than_its_window(
    visit: Visit, client: TestClient, submit: Submit, finish: Finish
) -> None:
    labels = {"run": LONG, "commit": "a" * 200}
    client.post("/series", json={"name": LONG, "base_model": LONG, "labels": labels})
    done, tested, inspected = (
        submit(method=LINE, labels=labels),
        submit(task="backtest", at=20, horizon_steps=40, labels=labels),
        submit(task="inspect", labels=labels),
    )
    finish(done, report=extrapolation(name=LONG))
    finish(tested, report=comparison())
    finish(inspected, report=inspection(steps=(10, 20, 60)))
    series = client.get("/series").json()["items"]
    jobs = (done, tested, inspected)
    pages = ["/", "/series", "/methods", f"/compare?jobs={','.join(jobs)}", "/login"]
    pages += [f"/series/{one['id']}" for one in series]
    pages += [f"/jobs/{job}{part}" for job in jobs for part in ("", "/again", "/report")]
    wide = {}
    for path in pages:
        visit.open(path)
        for width in (360, 768, 1280):
            visit.page.set_viewport_size({"width": width, "height": 800})
            content, window = visit.page.evaluate(_WIDTHS)
            assert window == width
            if content > window:
                wide[path, width] = content
    assert wide == {}


def test_a_list_is_not_renewed_under_a_selection_and_keeps_its_place(
    visit: Visit, store: Store, submit: Submit
) -> None:
    jobs = [submit(method=LINE, labels={"run": "a-run-with-a-name"}) for _ in range(2)]
    page = visit.page
    page.set_viewport_size({"width": 360, "height": 800})
    _open_with_its_time_held(visit, "/")
    page.evaluate(f"{_SCROLL} = 120")
    _mark(page, "td.name")
    assert not _list_asked_for_again(page, OFTEN)
    assert page.evaluate("getSelection().toString()").strip() == "a-run-with-a-name"
    page.evaluate("getSelection().removeAllRanges()")
    assert store.jobs.claim(jobs[0], "test")
    page.clock.run_for(OFTEN)
    expect(page.locator("tbody tr", has_text=jobs[0][-8:])).to_contain_text("running")
    assert page.evaluate(_SCROLL) == 120


@pytest.mark.parametrize(
    ("begin", "still"),
    [
        (lambda page: _mark(page, "td.name"), "getSelection().toString().trim() === 'a-run-with-a-name'"),
        (lambda page: page.get_by_label(FILTER).fill("expo"), "document.activeElement.value === 'expo'"),
        (lambda page: page.get_by_label("Compare").check(), "document.querySelector('td :checked') !== null"),
    ],
    ids=["marked", "typed", "ticked"],
)
def test_what_is_begun_while_the_list_is_on_its_way_stays(
    visit: Visit, submit: Submit, begin: Callable[[Page], None], still: str
) -> None:
    submit(method=LINE, labels={"run": "a-run-with-a-name"})
    page = visit.page
    _open_with_its_time_held(visit, "/")
    answers: list[Route] = []
    page.route(page.url, lambda route: answers.append(route))
    with page.expect_request(page.url):
        page.clock.run_for(OFTEN)
    begin(page)
    with page.expect_response(page.url):
        answers[0].continue_()
    page.wait_for_timeout(200)
    assert page.evaluate(still)


def test_a_click_into_a_table_does_not_stop_it(visit: Visit, store: Store, submit: Submit) -> None:
    job = submit(method=LINE)
    page = visit.page
    _open_with_its_time_held(visit, "/")
    page.locator("tbody td").nth(4).click()
    assert page.evaluate("document.activeElement.id") == "jobs"
    assert store.jobs.claim(job, "test")
    page.clock.run_for(OFTEN)
    expect(page.locator("tbody tr")).to_contain_text("running")
    assert page.evaluate("document.activeElement.id") == "jobs"


def test_a_list_goes_on_after_a_job_was_opened_in_a_tab(visit: Visit, store: Store, submit: Submit) -> None:
    job = submit(method=LINE)
    page = visit.page
    _open_with_its_time_held(visit, "/")
    link = page.get_by_role("link", name=job[-8:])
    with page.context.expect_page() as tab:
        link.click(modifiers=["Control"])
    tab.value.close()
    page.bring_to_front()
    submit(method=LINE)  # and moves the row down
    assert store.jobs.claim(job, "test")
    page.clock.run_for(OFTEN)
    expect(page.locator("tbody tr", has_text=job[-8:])).to_contain_text("running")
    expect(link).to_be_focused()


def test_a_list_of_finished_jobs_hears_of_new_ones(visit: Visit, client: TestClient, submit: Submit) -> None:
    client.post(f"/jobs/{submit(method=LINE)}/cancel")
    page = visit.page
    _open_with_its_time_held(visit, "/")
    expect(page.locator("tbody tr")).to_have_count(1)
    submit(method=LINE)
    assert not _list_asked_for_again(page, OFTEN)
    page.clock.run_for(SELDOM)
    expect(page.locator("tbody tr")).to_have_count(2)


def test_a_job_that_is_given_back_is_seen_to_wait_again(visit: Visit, store: Store, submit: Submit) -> None:
    job = submit(method=LINE)
    visit.open(f"/jobs/{job}")
    status = visit.page.get_by_role("status")
    for _ in range(2):
        claim = store.jobs.claim(job, "test")
        assert claim is not None
        expect(status).to_contain_text("Starting")
        store.jobs.release(job, claim.fence, "the worker was stopped")
        expect(status).to_contain_text("Waiting")


@pytest.mark.parametrize("path", ["/", "/jobs/{job}"])
def test_a_page_says_that_it_has_lost_the_server(visit: Visit, site: Site, submit: Submit, path: str) -> None:
    visit.open(path.format(job=submit(method=LINE)))
    lost = visit.page.get_by_role("alert")
    expect(lost).to_be_hidden()
    site.stop()
    expect(lost).to_contain_text("could not be renewed")
    site.start()
    expect(lost).to_be_hidden()
    visit.complaints.clear()  # a browser says itself that a connection was lost


def test_a_run_that_is_deleted_says_so(visit: Visit, client: TestClient, series_id: str) -> None:
    visit.open(f"/series/{series_id}")
    assert client.delete(f"/series/{series_id}").is_success
    expect(visit.page.get_by_role("alert")).to_contain_text(series_id)
    expect(visit.page.get_by_role("link", name="Extrapolate", exact=True)).to_have_count(0)
    visit.complaints.clear()  # a browser says itself that there was a 404


def test_many_jobs_in_tabs_leave_the_server_reachable(visit: Visit, store: Store, submit: Submit) -> None:
    jobs = [submit(method=LINE) for _ in range(7)]
    tabs = [visit.page.context.new_page() for _ in jobs]
    for job, tab in zip(jobs, tabs, strict=True):
        tab.goto(f"{visit.url}/jobs/{job}")
    visit.open("/")
    assert store.jobs.claim(jobs[0], "test")
    expect(tabs[0].get_by_role("status")).to_contain_text("Starting")


@pytest.mark.parametrize(
    "fault", [lambda route: route.fulfill(status=503), lambda _: None], ids=["refused", "no answer"]
)
def test_a_jobs_end_is_shown_although_the_first_request_for_it_fails(
    visit: Visit, store: Store, submit: Submit, finish: Finish, fault: Callable[[Route], None]
) -> None:
    job = submit(method=LINE)
    visit.open(f"/jobs/{job}")
    claim = store.jobs.claim(job, "test")
    expect(visit.page.get_by_role("status")).to_contain_text("Starting")
    visit.page.route(visit.page.url, fault, times=1)
    finish(job, report=extrapolation(), claim=claim)
    expect(visit.page.get_by_role("status")).to_contain_text("Done")
    visit.complaints.clear()  # a browser says itself that there was a 503


def test_a_late_answer_does_not_undo_a_jobs_end(
    visit: Visit, store: Store, submit: Submit, finish: Finish
) -> None:
    job = submit(method=LINE)
    page = visit.page
    visit.open(f"/jobs/{job}")
    held: list[Route] = []
    page.route(page.url, lambda route: held.append(route), times=1)
    claim = store.jobs.claim(job, "test")
    while not held:
        page.wait_for_timeout(50)
    late = held[0].fetch()
    finish(job, report=extrapolation(), claim=claim)
    page.wait_for_timeout(3_000)
    held[0].fulfill(response=late)
    page.wait_for_timeout(500)
    expect(page.get_by_role("status")).to_contain_text("Done")


def test_a_waiting_job_moves_up(visit: Visit, submit: Submit, finish: Finish) -> None:
    ahead, job = submit(method=LINE), submit(method=LINE)
    visit.open(f"/jobs/{job}")
    expect(visit.page.get_by_role("status")).to_contain_text("1 job is ahead of it")
    finish(ahead, report=extrapolation())
    expect(visit.page.get_by_role("status")).to_contain_text("It is next")


def test_the_focus_stays_on_a_jobs_page_to_its_end(visit: Visit, submit: Submit, finish: Finish) -> None:
    job = submit(method=LINE)
    visit.open(f"/jobs/{job}")
    again = visit.page.get_by_role("link", name="Run again with other parameters")
    again.focus()
    finish(job, report=extrapolation())
    expect(visit.page.get_by_role("link", name="Open the report")).to_be_visible()
    expect(again).to_be_focused()


def test_what_is_read_aloud_is_not_said_again_while_the_bar_moves(
    visit: Visit, store: Store, submit: Submit
) -> None:
    job = submit(method=LINE)
    claim = store.jobs.claim(job, "test")
    assert claim is not None
    store.jobs.beat(job, claim.fence, stage=Stage.EXTRACT, progress=0.3)
    visit.open(f"/jobs/{job}")
    visit.page.evaluate("said = document.querySelector('[role=status]')")
    store.jobs.beat(job, claim.fence, stage=Stage.EXTRACT, progress=0.4)
    expect(visit.page.locator("#percent")).to_have_text("40 %")
    assert visit.page.evaluate("said.isConnected")


def test_a_job_leads_to_the_sign_in_once_the_session_has_ended(
    visit: Visit, site: Site, store: Store, submit: Submit
) -> None:
    path = f"/jobs/{submit(method=LINE)}"
    visit.open(path)
    expect(visit.page.get_by_role("button", name="Cancel")).to_be_visible()
    (cookie,) = visit.page.context.cookies()
    site.stop()
    store.sessions.end(cookie["value"])
    site.start()
    visit.page.wait_for_url(f"{site.url}/login?**")
    assert f"next={path}" in visit.page.url
    visit.complaints.clear()  # the same
