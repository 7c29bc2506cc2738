"""What a later server answers is read: what it adds is passed over, and its methods are named."""

from typing import Any

import pytest
from fixtures.client_examples import a_job
from fixtures.reports import comparison, extrapolation, inspection
from fixtures.scripted_server import MakeClient, ScriptedServer, answer
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from nextrapolate import ServerError
from nextrapolate.methods import label
from nextrapolate.schemas import JobPage, JobState, MethodParameters, NextMethod, OtherMethod


def later(value: Any, method: str | None = None) -> Any:
    """The same as JSON, with a field more in each part; methods by this name, if one is given."""
    match value:
        case BaseModel():
            parts = {name: later(getattr(value, name), method) for name in type(value).model_fields}
            renamed = {"name": method} if method and isinstance(value, MethodParameters) else {}
            return parts | renamed | {"later": {"a": 1}}
        case dict():
            return {name: later(each, method) for name, each in value.items()}
        case list() | tuple():
            return [later(each, method) for each in value]
    return to_jsonable_python(value)


JOB = a_job(JobState.SUCCEEDED, method=NextMethod(horizon_steps=30, rank=4))
REPORTS = [extrapolation(), comparison(), inspection()]


def test_a_job_with_more_to_it_is_the_job(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("GET", "/jobs/j1", answer(later(JOB)))
    assert make_client(scripted.url).get_job("j1") == JOB


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.task)
def test_a_report_with_more_to_it_is_the_report(
    make_client: MakeClient, scripted: ScriptedServer, report: BaseModel
) -> None:
    scripted.on("GET", "/jobs/j1", answer(later(JOB)))
    scripted.on("GET", "/jobs/j1/report", answer(later(report)))
    assert make_client(scripted.url).report("j1", type(report)) == report


def test_a_method_that_only_it_knows_is_named(make_client: MakeClient, scripted: ScriptedServer) -> None:
    """One job by it costs nobody the list of the others."""
    page = JobPage(items=[JOB, a_job()], next_cursor=None)
    document = later(page)
    document["items"][0] = later(JOB, "of-a-later-server")
    scripted.on("GET", "/jobs", answer(document))
    first, second = make_client(scripted.url).list_jobs()
    assert isinstance(first.method, OtherMethod)
    assert (first.method.name, first.method.horizon_steps) == ("of-a-later-server", 30)
    assert label(first.method) == "of-a-later-server"
    assert second == a_job()


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.task)
def test_its_methods_are_read_in_reports(
    make_client: MakeClient, scripted: ScriptedServer, report: BaseModel
) -> None:
    scripted.on("GET", "/jobs/j1", answer(later(JOB)))
    scripted.on("GET", "/jobs/j1/report", answer(later(report, "of-a-later-server")))
    assert make_client(scripted.url).report("j1", type(report)).verdict


def test_what_cannot_be_read_of_a_method_is_named_as_it_is_written(
    make_client: MakeClient, scripted: ScriptedServer
) -> None:
    document = later(JOB, "holt")
    document["method"]["horizon_steps"] = None
    scripted.on("GET", "/jobs/j1", answer(document))
    with pytest.raises(ServerError, match="cannot read") as refused:
        make_client(scripted.url).get_job("j1")
    assert "(method: Input tag 'holt'" in str(refused.value)
    assert "tagged-union" not in str(refused.value)
