"""The pages in a real Chromium: what people do with them, and what the pages must never do."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from fixtures.browser import Visit, visiting
from fixtures.reports import comparison, extrapolation, inspection
from fixtures.site import HOSTILE, Site
from playwright.sync_api import Browser, expect

from nextrapolate.schemas import JobError, Stage
from nextrapolate_store.store import Store

pytestmark = pytest.mark.integration

Finish = Callable[..., dict[str, bytes]]


Submit = Callable[..., str]
LINE = {"name": "weight-extrapolation"}


def fail(store: Store, job_id: str) -> None:
    claim = store.jobs.claim(job_id, "test")
    assert claim is not None
    error = JobError(code="non-finite", detail=f"checkpoint 20 has NaN in {HOSTILE}", blame="user")
    assert store.jobs.fail(job_id, claim.fence, error)


def test_every_page_shows_what_it_should_and_does_nothing_else(
    visit: Visit, client: TestClient, store: Store, submit: Submit, finish: Finish
) -> None:
    hostile_series = client.post("/series", json={"name": HOSTILE, "base_model": HOSTILE}).json()["id"]
    done, failed, tested, inspected = (
        submit(method=LINE),
        submit(method={"name": "expo"}),
        submit(task="backtest", at=20, horizon_steps=40),
        submit(task="inspect"),
    )
    series = client.get(f"/jobs/{done}").json()["series"]
    name = f"model.layers.0.{HOSTILE}"
    finish(done, report=extrapolation(name=name))
    finish(tested, report=comparison())
    finish(inspected, report=inspection(steps=(10, 20, 60)))
    fail(store, failed)
    queued = submit(method=LINE)
    pages = {
        "jobs": ("/", "waiting"),
        "job": (f"/jobs/{done}", "came 40% closer than no jump"),
        "job-failed": (f"/jobs/{failed}", "checkpoint 20 has NaN"),
        "job-queued": (f"/jobs/{queued}", "It is next"),
        "job-backtest": (f"/jobs/{tested}", "autoregression predicts best"),
        "job-inspection": (f"/jobs/{inspected}", "Extrapolation should pay"),
        "again": (f"/jobs/{done}/again", "Parameters of weight-extrapolation"),
        "report": (f"/jobs/{done}/report", "Jump recommended"),
        "report-backtest": (f"/jobs/{tested}/report", "A method beats no jump"),
        "report-inspection": (f"/jobs/{inspected}/report", "Worth extrapolating"),
        "all-series": ("/series", "</title>"),
        "series": (f"/series/{series}", "3 checkpoints have arrived"),
        "series-empty": (f"/series/{hostile_series}", "Nothing has arrived yet"),
        "methods": ("/methods", "arXiv:2604.11446"),
        "compare": (f"/compare?jobs={done},{tested},{inspected}", "Comparison of 3 jobs"),
    }
    for name, (path, told) in pages.items():
        visit.open(path)
        expect(visit.page.locator("body")).to_contain_text(told)
        visit.screenshot(name)
        visit.check()
    visit.open(f"/jobs/{done}")
    expect(visit.page.get_by_text(HOSTILE)).to_have_count(2)  # the run's name, and the label it is from
    visit.open(f"/jobs/{done}/report")
    visit.page.get_by_text("All modules: what was measured").click()
    expect(visit.page.locator("code", has_text="{{7*7}}")).to_be_visible()


@pytest.mark.parametrize(
    "path", ["/", "/methods", "/jobs/{job}", "/jobs/{job}/report", "/compare?jobs={job}"]
)
def test_nothing_needs_a_script(
    chromium: Browser, site: Site, api_key: str, submit: Submit, finish: Finish, path: str
) -> None:
    job = submit(method=LINE)
    finish(job, report=extrapolation())
    with visiting(chromium, site.url, scripts=False) as visit:
        visit.sign_in(api_key)
        visit.open(path.format(job=job))
        expect(visit.page.locator("h1")).to_be_visible()
        assert visit.complaints == []


def test_progress_is_live_through_a_restart_of_the_server(
    visit: Visit, site: Site, store: Store, submit: Submit, finish: Finish
) -> None:
    job = submit(method=LINE)
    visit.open(f"/jobs/{job}")
    expect(visit.page.get_by_role("status")).to_contain_text("Waiting for a worker. It is next.")
    claim = store.jobs.claim(job, "test")
    assert claim is not None
    store.jobs.beat(job, claim.fence, stage=Stage.EXTRACT, progress=0.3)
    expect(visit.page.locator("#percent")).to_have_text("30 %")
    expect(visit.page.get_by_role("status")).to_contain_text("Reading the weights")
    visit.page.evaluate("document.body.dataset.mark = 'not reloaded'")
    visit.screenshot("job-running")

    site.stop()
    store.jobs.beat(job, claim.fence, stage=Stage.FIT, progress=0.6)
    expect(visit.page.get_by_role("alert")).to_be_visible()
    site.start()
    expect(visit.page.locator("#percent")).to_have_text("60 %")
    expect(visit.page.get_by_role("status")).to_contain_text("Fitting the method")

    finish(job, report=extrapolation(), claim=claim)
    expect(visit.page.get_by_role("link", name="Open the report")).to_be_visible()
    expect(visit.page.get_by_role("status")).to_contain_text("Done")
    assert visit.page.evaluate("document.body.dataset.mark") == "not reloaded"
    lost = [
        text for text in visit.complaints if "ERR_CONNECTION" not in text and "ERR_INCOMPLETE" not in text
    ]
    assert lost == [], "a browser says itself that a connection was lost; nothing else may be said"
    visit.complaints.clear()


def test_a_job_is_cancelled_with_and_without_a_script(
    chromium: Browser, visit: Visit, site: Site, api_key: str, submit: Submit
) -> None:
    first, second = submit(method=LINE), submit(method=LINE)
    visit.open(f"/jobs/{first}")
    visit.page.get_by_role("button", name="Cancel").click()
    expect(visit.page.get_by_role("status")).to_contain_text("Cancelled")
    with visiting(chromium, site.url, scripts=False) as plain:
        plain.sign_in(api_key)
        plain.open(f"/jobs/{second}")
        plain.page.get_by_role("button", name="Cancel").click()
        expect(plain.page.get_by_role("status")).to_contain_text("Cancelled")


def test_the_list_is_filtered_and_stays_fresh(
    visit: Visit, store: Store, submit: Submit, client: TestClient
) -> None:
    line = submit(method=LINE)
    client.post(f"/jobs/{submit(method={'name': 'expo'})}/cancel")
    rows = visit.page.locator("tbody tr")
    visit.open("/")
    expect(rows).to_have_count(2)
    visit.page.get_by_label("Run, label, method or id").fill("expo")
    visit.page.get_by_role("button", name="Show").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("cancelled")
    visit.page.get_by_label("Run, label, method or id").fill("")
    visit.page.get_by_label("State").select_option("waiting")
    visit.page.get_by_role("button", name="Show").click()
    expect(rows).to_contain_text(line[-8:])
    visit.open("/")
    assert store.jobs.claim(line, "test")
    expect(rows.filter(has_text="weight-extrapolation")).to_contain_text("running")


def test_jobs_are_picked_and_compared(visit: Visit, submit: Submit, finish: Finish) -> None:
    jobs = [submit(method=LINE), submit(method={"name": "expo", "alpha": 0.2})]
    for job, error in zip(jobs, (0.6, 1.2), strict=True):
        finish(job, report=extrapolation(relative_error=error))
    visit.open("/")
    for job in jobs:
        visit.page.get_by_label(f"Compare {job}").check()
    visit.page.get_by_role("button", name="Compare selected").click()
    expect(visit.page.locator("h1")).to_have_text("Comparison of 2 jobs")
    row = visit.page.get_by_role("row", name="relative error")
    expect(row).to_contain_text("0.6")
    expect(row).to_contain_text("1.2")
    expect(row).to_contain_text("differs")
    visit.page.set_viewport_size({"width": 360, "height": 800})
    visit.page.get_by_role("region", name="Comparison").evaluate("one => (one.scrollLeft = one.scrollWidth)")
    for named in (row.get_by_role("rowheader"), visit.page.get_by_text("What was asked")):
        box = named.bounding_box()
        assert box is not None
        assert box["x"] >= 0, "names stay in sight"


def test_a_job_is_run_again_by_another_method(visit: Visit, submit: Submit, finish: Finish) -> None:
    job = submit(method=LINE)
    finish(job, report=extrapolation())
    visit.open(f"/jobs/{job}")
    visit.page.get_by_role("link", name="Run again with other parameters").click()
    visit.page.get_by_text("Choose another").click()
    visit.page.get_by_role("link", name="expo", exact=True).click()
    visit.page.get_by_label("alpha").fill("0.25")
    visit.page.get_by_role("button", name="Run", exact=True).click()
    expect(visit.page.locator("h1")).to_contain_text("Extrapolate by expo")
    expect(visit.page.get_by_role("row", name="alpha")).to_contain_text("0.25")


def test_the_keyboard_reaches_the_content_first(visit: Visit, submit: Submit) -> None:
    submit(method=LINE)
    visit.open("/")
    visit.page.keyboard.press("Tab")
    expect(visit.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    visit.page.keyboard.press("Enter")
    visit.page.keyboard.press("Tab")
    expect(visit.page.get_by_label("Run, label, method or id")).to_be_focused()


def test_the_report_is_shown_in_the_dark_and_on_paper(
    chromium: Browser, site: Site, api_key: str, submit: Submit, finish: Finish
) -> None:
    job = submit(method=LINE)
    finish(job, report=extrapolation())
    with visiting(chromium, site.url, scheme="dark") as visit:
        visit.sign_in(api_key)
        colours = []
        for medium in ("screen", "print"):
            for path, name in ((f"/jobs/{job}", "job"), (f"/jobs/{job}/report", "report")):
                visit.open(path)
                visit.page.emulate_media(media="print" if medium == "print" else "screen")
                visit.screenshot(f"{name}-dark-{medium}")
            colours.append(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert colours[0] != "rgb(255, 255, 255)"
        assert all(part.is_hidden() for part in visit.page.locator("nav, details").all())
        visit.page.set_viewport_size({"width": 700, "height": 1000})  # of A4
        cut = "pre => pre.some(one => one.scrollWidth > one.clientWidth)"
        assert not visit.page.locator("pre").evaluate_all(cut)
        visit.check()
