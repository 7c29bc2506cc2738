"""What forms on the pages may do: ask for a job, first or again, and cancel one."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from fixtures.adapters import write_run
from fixtures.dense import checkpoints
from fixtures.page_forms import Forms

from nextrapolate.methods import METHODS
from nextrapolate.schemas import BacktestCreate
from nextrapolate_numerics import Backtest, Trajectory, inspect
from nextrapolate_service.pages.asking import Draft
from nextrapolate_store.records import SeriesRecord
from nextrapolate_store.store import Store


@pytest.fixture
def job_id(client: TestClient, series_id: str) -> str:
    request = {"series": series_id, "method": {"name": "weight-extrapolation"}, "labels": {"run": "grpo"}}
    return str(client.post("/jobs", json=request).json()["id"])


def test_a_form_cancels_a_job(browser: TestClient, client: TestClient, job_id: str) -> None:
    form = Forms(browser.get(f"/jobs/{job_id}").text).to(f"/jobs/{job_id}/cancel")
    answer = browser.post(f"/jobs/{job_id}/cancel", data=form)
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/jobs/{job_id}")
    assert client.get(f"/jobs/{job_id}").json()["state"] == "cancelled"
    assert "Cancelled" in browser.get(f"/jobs/{job_id}").text
    assert browser.post(f"/jobs/{job_id}/cancel", data=form).status_code == 303


def test_a_form_that_is_not_ours_changes_nothing(
    browser: TestClient, client: TestClient, job_id: str, store: Store
) -> None:
    path = f"/jobs/{job_id}/cancel"
    form = Forms(browser.get(f"/jobs/{job_id}").text).to(path)
    assert browser.post(path, data={}).status_code == 403
    assert browser.post(path, data={"form_token": "0" * 64}).status_code == 403
    assert browser.post(path, data=form, headers={"Origin": "https://elsewhere.example"}).status_code == 403
    assert client.get(f"/jobs/{job_id}").json()["state"] == "queued"
    own = browser.post(path, data=form, headers={"Origin": "http://testserver"})
    assert own.status_code == 303


def test_a_job_is_run_again_with_other_parameters(
    browser: TestClient, client: TestClient, job_id: str
) -> None:
    page = browser.get(f"/jobs/{job_id}/again?method=relex")
    form = Forms(page.text).to("/jobs")
    assert form["method.name"] == "relex"
    form |= {"method.rank": "2", "method.window_steps": "", "output.dtype": "bfloat16", "until": "20"}
    answer = browser.post("/jobs", data=form)
    again = client.get(answer.headers["Location"]).json()
    assert again["method"] == {
        "name": "relex", "rank": 2, "window_steps": None, "mode": "last", "degree": 1,
        "alpha": 1.0, "horizon_steps": 50, "seed": 0,
    }  # fmt: skip
    assert again["output"] == {"rank": "same", "dtype": "bfloat16"}
    assert again["steps"] == [10, 20]
    assert again["labels"] == {"run": "grpo"}
    assert browser.post("/jobs", data=form).headers["Location"] == answer.headers["Location"], "sent twice"


def test_a_form_shows_no_other_method_than_the_one_that_it_runs(
    browser: TestClient, client: TestClient, job_id: str, series_id: str
) -> None:
    for asking in (f"/jobs/{job_id}/again", f"/series/{series_id}/ask"):
        page = browser.get(f"{asking}?method=relex").text
        form = Forms(page).to("/jobs")
        refused = browser.post("/jobs", data={**form, "until": "10"}).text
        for shown in (page, refused):
            links = re.findall(rf'href="{asking}\?method=([^"]+)"( aria-current="true")?', shown)
            assert {name for name, _ in links} == set(METHODS)
            assert [name for name, current in links if current] == ["relex"]
            assert 'value="expo"' not in shown, "what is not run cannot be entered"
        job = browser.post("/jobs", data=form).headers["Location"]
        assert client.get(job).json()["method"]["name"] == "relex"


def test_the_first_job_on_a_run_is_asked_for_on_its_page(
    browser: TestClient, client: TestClient, series_id: str
) -> None:
    asked = f"/series/{series_id}/ask"
    assert f'href="{asked}"' in browser.get(f"/series/{series_id}").text
    form = Forms(browser.get(f"{asked}?method=relex").text).to("/jobs")
    assert (form["on"], form["method.name"], form["until"]) == (series_id, "relex", "")
    form |= {"method.rank": "2", "until": "20"}
    refused = browser.post("/jobs", data={**form, "until": "10"})
    assert refused.status_code == 422
    assert "needs at least 2 checkpoints" in refused.text
    answer = browser.post("/jobs", data={**Forms(refused.text).to("/jobs"), "until": "20"})
    job = client.get(answer.headers["Location"]).json()
    assert (job["method"]["name"], job["method"]["rank"], job["steps"]) == ("relex", 2, [10, 20])


def test_a_backtest_asked_for_on_a_run_holds_out_its_last_third(
    browser: TestClient, client: TestClient, series_id: str
) -> None:
    asked = f"/series/{series_id}/ask?task=backtest"
    assert f'href="{asked}"' in browser.get(f"/series/{series_id}").text
    form = Forms(browser.get(asked).text).to("/jobs")
    assert (form["at"], form["horizon_steps"]) == ("20", "40")
    refused = browser.post("/jobs", data={**form, "horizon_steps": "7"})
    assert refused.status_code == 422
    answer = browser.post("/jobs", data={**Forms(refused.text).to("/jobs"), "horizon_steps": "40"})
    job = client.get(answer.headers["Location"]).json()
    assert (job["task"], job["steps"]) == ("backtest", [10, 20, 60])


@pytest.mark.parametrize(
    "steps",
    [
        range(10, 101, 10),
        range(100, 151, 10),
        [10, 40, 50, 90, 100],
        [0, 10, 20, 30],
        [10, 20, 60],  # 20 and 60 are equally near to 40
        [1, 2, 3],
    ],
)
def test_the_backtest_that_a_form_proposes_is_that_of_an_inspection(
    steps: Sequence[int], tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", steps)
    evidence = inspect(Trajectory.open(checkpoints(run))).evidence
    assert isinstance(evidence, Backtest)
    draft = Draft.on(series_of(steps), "backtest").request
    assert isinstance(draft, BacktestCreate)
    assert (draft.at, draft.until) == (evidence.origin_step, evidence.target_step)


@pytest.mark.parametrize(("steps", "proposed"), [([], (0, 50)), ([10], (10, 60)), ([10, 11], (11, 61))])
def test_where_nothing_can_be_held_out_a_form_proposes_what_may_come(
    steps: Sequence[int], proposed: tuple[int, int]
) -> None:
    draft = Draft.on(series_of(steps), "backtest").request
    assert isinstance(draft, BacktestCreate)
    assert (draft.at, draft.until) == proposed


def series_of(steps: Sequence[int]) -> SeriesRecord:
    """A run with these checkpoints."""
    return SeriesRecord(
        id="01SERIES",
        tenant="tests",
        name="run",
        base_model=None,
        lora_config=None,
        lora_config_file=None,
        labels={},
        created_at=datetime.now(UTC),
        checkpoints={step: {} for step in steps},
        jumps=(),
    )


def test_a_run_without_checkpoints_has_nothing_to_ask_for(browser: TestClient, client: TestClient) -> None:
    empty = client.post("/series", json={"name": "empty"}).json()["id"]
    assert "/ask" not in browser.get(f"/series/{empty}").text
    for task in ("extrapolate", "backtest"):
        page = browser.get(f"/series/{empty}/ask?task={task}")
        assert "Nothing has arrived yet" in page.text
        assert browser.post("/jobs", data=Forms(page.text).to("/jobs")).status_code == 422
    assert browser.get(f"/series/{empty}/ask?task=nonsense").status_code == 422
    assert browser.get("/series/nope/ask").status_code == 404


def test_what_cannot_be_run_is_asked_again_with_the_reason(browser: TestClient, job_id: str) -> None:
    form = Forms(browser.get(f"/jobs/{job_id}/again?method=expo").text).to("/jobs")
    answer = browser.post("/jobs", data={**form, "method.alpha": "-3"})
    assert answer.status_code == 422
    assert "method.alpha: Input should be greater than or equal to 0" in answer.text
    assert Forms(answer.text).to("/jobs")["method.alpha"] == "-3"
    few = browser.post("/jobs", data={**form, "until": "10"})
    assert few.status_code == 422
    assert "needs at least 2 checkpoints" in few.text


def test_backtests_and_inspections_are_run_again_too(
    browser: TestClient, client: TestClient, series_id: str
) -> None:
    request = {"task": "backtest", "series": series_id, "at": 20, "horizon_steps": 40}
    job = client.post("/jobs", json={**request, "methods": [{"name": "expo", "alpha": 0.2}]}).json()["id"]
    form = Forms(browser.get(f"/jobs/{job}/again").text).to("/jobs")
    assert (form["at"], form["horizon_steps"], form["methods"]) == ("20", "40", "expo")
    sent = browser.post(
        "/jobs", data={**form, "at": "10", "horizon_steps": "10", "methods": ["expo", "none"]}
    )
    record = browser.get(sent.headers["Location"]).text
    assert "expo alpha=0.2, none" in record
    inspect = client.post("/jobs", json={"task": "inspect", "series": series_id}).json()["id"]
    form = Forms(browser.get(f"/jobs/{inspect}/again").text).to("/jobs")
    assert browser.post("/jobs", data=form).status_code == 303
