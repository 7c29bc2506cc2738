"""Whatever shows a report says the same of it: nothing decides for itself what a report says."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from fixtures.read_reports import CASES

from nextrapolate.console import show_extrapolation
from nextrapolate.extrapolation import Extrapolation
from nextrapolate.notebook import report_html
from nextrapolate.reading import read
from nextrapolate.schemas import AnyReport, Comparison, Inspection, Job, Report
from nextrapolate.tables import show_comparison, show_inspection
from nextrapolate_worker.publishing import publish

HEADLINES = {case.headline for case in CASES.values()}

Finish = Callable[..., dict[str, bytes]]


def text(html: str) -> str:
    """What a reader sees, less how it is laid out."""
    html = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def printed(report: AnyReport, job: Job) -> None:
    match report:
        case Report():
            show_extrapolation(Extrapolation(job, Path("out"), report))
        case Comparison():
            show_comparison(report)
        case Inspection():
            show_inspection(report)


@pytest.mark.parametrize("name", CASES)
def test_all_that_shows_a_report_says_the_same(
    name: str,
    browser: TestClient,
    client: TestClient,
    series_id: str,
    finish: Finish,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = CASES[name]
    report, reading = case.report, read(case.report)
    asked = {"at": 20, "horizon_steps": 40} if report.task == "backtest" else {}
    request = {"task": report.task, "series": series_id, **asked}
    job = Job.model_validate(client.post("/jobs", json=request).json())
    page = text(finish(job.id, report=report)["report.html"].decode())
    printed(report, job)
    said = {
        "report page": page,
        "job page": text(browser.get(f"/jobs/{job.id}").text),
        "notebook": text(report_html(report)),
        "terminal": " ".join(capsys.readouterr().out.split()),
    }
    if isinstance(report, Inspection) or (isinstance(report, Report) and report.is_forecast):
        said["series page"] = text(browser.get(f"/series/{series_id}").text)
    assert reading.verdict.startswith(case.verdict)
    for surface, shown in said.items():
        mark = "" if surface == "terminal" else f"{case.mark} "
        assert f"{mark}{case.headline} {reading.verdict}" in shown, surface
        assert {headline for headline in HEADLINES if headline in shown} == {case.headline}, surface
        assert "None." not in shown, surface
    for surface in ("report page", "job page", "notebook"):
        for question, answer in reading.answers:
            assert f"{question} {answer}" in said[surface], surface


@pytest.mark.parametrize("name", CASES)
def test_the_worker_writes_the_same_verdict(name: str, tmp_path: Path) -> None:
    report = CASES[name].report.model_copy(update={"verdict": ""})
    artifacts = publish(report, tmp_path)
    written = type(report).model_validate_json((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written.verdict == read(report).verdict
    if "README.md" in artifacts:
        assert written.verdict in (tmp_path / "README.md").read_text(encoding="utf-8")
