"""`nextrapolate jobs` and `nextrapolate series`: what they print where, and with which exit code they end."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from fixtures.client_examples import NOW, a_job, an_event
from fixtures.command import Ended, Run
from fixtures.scripted_job import ADAPTER, script_job
from fixtures.scripted_server import ScriptedServer, answer, problem

from nextrapolate import JobEvent, NExtClient, Series
from nextrapolate.schemas import CheckpointInfo, CheckpointRef, FileInfo, JobState, NextMethod


def test_leaving_a_watched_job_says_so_too(
    run: Run, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(client: NExtClient, job_id: str, *, on_event: Callable[[JobEvent], None]) -> NoReturn:
        on_event(an_event(1))
        raise KeyboardInterrupt

    monkeypatch.setattr(NExtClient, "wait", leave)
    ended = run("jobs", "watch", "j1", "--url", scripted.url)
    assert ended.code == 130
    at = f"--url {scripted.url}`"
    assert f"`nextrapolate jobs watch j1 {at} follows it, " in ended.err
    assert f"`nextrapolate jobs cancel j1 {at} cancels it, " in ended.err
    assert f"`nextrapolate jobs download j1 --out DIR {at} fetches its result" in ended.err


def test_the_result_of_a_finished_job(run: Run, service: ScriptedServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = run("jobs", "download", "j1", "--out", out, "--url", service.url)
    load = f'load it  PeftModel.from_pretrained(base_model, "{out}")'
    assert ended == Ended(0, f"adapter  {out}\n{load}\n", "")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == ADAPTER
    again = run("jobs", "download", "j1", "--out", out, "--url", service.url)
    assert again.code == 2
    assert "already exists and is not overwritten" in again.err


def test_the_result_of_an_inspection_is_a_report(run: Run, service: ScriptedServer, tmp_path: Path) -> None:
    report = {"report.json": FileInfo(bytes=2, sha256=hashlib.sha256(b"{}").hexdigest())}
    finished = a_job(JobState.SUCCEEDED, task="inspect", method=None, artifacts=report)
    service.on("GET", "/jobs/j1", answer(finished))
    service.on("GET", "/jobs/j1/adapter/report.json", answer(b"{}"))
    ended = run("jobs", "download", "j1", "--out", tmp_path / "out", "--url", service.url)
    assert ended == Ended(0, f"report   {tmp_path / 'out'}\n", "")


def test_a_job_that_is_not_finished_has_nothing_to_download(
    run: Run, scripted: ScriptedServer, tmp_path: Path
) -> None:
    scripted.on("GET", "/jobs/j1", answer(a_job(JobState.RUNNING)))
    ended = run("jobs", "download", "j1", "--out", tmp_path / "out", "--url", scripted.url)
    assert ended == Ended(2, "", "nextrapolate: job j1 is still running; wait for it first\n")


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_watch(run: Run, scripted: ScriptedServer, state: str, code: int) -> None:
    script_job(scripted, JobState(state))
    ended = run("jobs", "watch", "j1", "--url", scripted.url)
    assert ended.code == code
    assert "fit" in ended.err
    assert ("failed" in ended.err) == (state == "failed")
    assert ("100%" in ended.err) == (state == "succeeded")


def test_jobs(run: Run, service: ScriptedServer) -> None:
    jobs = {"items": [a_job().model_dump(mode="json")], "next_cursor": None}
    service.on("GET", "/jobs", answer(jobs))
    listed = run("jobs", "list", "--state", "queued", "--url", service.url)
    created = f"{NOW.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    assert listed.out.split() == ["j1", "queued", "0%", *created.split(), "next", "steps", "10-30", "-"]
    assert listed.err == ""
    assert service.received[-1].path == "/jobs?state=queued&limit=21"
    assert json.loads(run("jobs", "list", "--json", "--url", service.url).out)[0]["id"] == "j1"
    shown = run("jobs", "show", "j1", "--url", service.url).out
    assert re.search(r"^state +succeeded$", shown, re.MULTILINE)
    assert re.search(rf"^created +{re.escape(created)}$", shown, re.MULTILINE)
    assert re.search(r"^method +next horizon_steps=50 seed=0 ", shown, re.MULTILINE)
    service.on("GET", "/jobs/j1", answer(a_job(labels={"seed": "7", "run": "b"})))
    assert "\nlabels          seed=7 run=b\n" in run("jobs", "show", "j1", "--url", service.url).out
    cancelled = run("jobs", "cancel", "j1", "--json", "--url", service.url)
    assert json.loads(cancelled.out)["state"] == "cancelled"


def test_jobs_tell_what_was_asked(run: Run, service: ScriptedServer) -> None:
    read_from = [CheckpointRef(uri=f"file:///runs/{step}") for step in (10, 20)]
    asked: dict[str, Any] = {"task": "backtest", "method": None, "at": 10, "horizon_steps": 10}
    job = a_job(**asked, checkpoints=read_from)
    service.on("GET", "/jobs", answer({"items": [job.model_dump(mode="json")], "next_cursor": None}))
    assert "  backtest at 10  " in run("jobs", "list", "--url", service.url).out
    service.on("GET", "/jobs/j1", answer(job), answer(job.model_copy(update={"methods": [NextMethod()]})))
    shown = run("jobs", "show", "j1", "--url", service.url).out
    assert "\nat step         10\nsteps ahead     10\nmethods         all\n" in shown
    assert "\nread from       file:///runs/10 file:///runs/20\n" in shown
    assert "\nmethods         next\n" in run("jobs", "show", "j1", "--url", service.url).out


def test_jobs_are_listed_with_their_runs_as_far_as_the_limit_goes(run: Run, service: ScriptedServer) -> None:
    jobs = [a_job(id=f"j{number}", series=series) for number, series in enumerate(("s1", "s1", "gone"))]
    page = {"items": [job.model_dump(mode="json") for job in jobs], "next_cursor": None}
    service.on("GET", "/jobs", answer(page))
    series = Series(
        id="s1", name="grpo", base_model=None, labels={}, created_at=NOW, checkpoints=[], jumps=[]
    )
    service.on("GET", "/series/s1", answer(series))
    service.on("GET", "/series/gone", problem(404))
    listed = run("jobs", "list", "--url", service.url)
    assert [line.split()[-1] for line in listed.out.splitlines()] == ["grpo", "grpo", "-"]
    assert [received.path for received in service.received].count("/series/s1") == 1
    limited = run("jobs", "list", "--limit", 2, "--url", service.url)
    assert len(limited.out.splitlines()) == 2
    assert limited.err == "there are more than these 2: raise --limit to see them\n"
    service.on("GET", "/jobs", answer({"items": [], "next_cursor": None}))
    assert run("jobs", "list", "--url", service.url) == Ended(0, "", "no jobs found\n")


def test_series_are_listed_and_deleted(run: Run, scripted: ScriptedServer) -> None:
    files = {"adapter_model.safetensors": FileInfo(bytes=1, sha256="-")}
    checkpoints = [CheckpointInfo(step=step, files=files) for step in (10, 20)]
    one = Series(
        id="s1", name="my run", base_model=None, labels={}, created_at=NOW, checkpoints=checkpoints, jumps=[]
    )
    empty = one.model_copy(update={"id": "s2", "checkpoints": []})
    page = {"items": [item.model_dump(mode="json") for item in (one, empty)], "next_cursor": None}
    scripted.on("GET", "/series", answer(page))
    listed = run("series", "list", "--url", scripted.url)
    created = f"{NOW.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    first, second = (line.split() for line in listed.out.splitlines())
    assert first == ["s1", *created.split(), "2", "checkpoints", "steps", "10-20", "my", "run"]
    assert second[-6:] == ["0", "checkpoints", "steps", "-", "my", "run"]
    limited = run("series", "list", "--limit", 1, "--json", "--url", scripted.url)
    assert [item["id"] for item in json.loads(limited.out)] == ["s1"]
    limited = run("series", "list", "--limit", 1, "--url", scripted.url)
    assert limited.err == "there are more than these 1: raise --limit to see them\n"
    scripted.on("GET", "/series", answer({"items": [], "next_cursor": None}))
    assert run("series", "list", "--url", scripted.url) == Ended(0, "", "no series found\n")
    scripted.on("DELETE", "/series/s1", answer(b"", 204))
    advice = "GET /series lists the existing ones"
    detail = f"there is no series s2: {advice}"
    gone = problem(404, code="series-not-found", detail=detail, advice=advice)
    scripted.on("DELETE", "/series/s2", gone)
    said = "nextrapolate: there is no series s2: `nextrapolate series list` lists the existing ones\n"
    assert run("series", "delete", "s1", "s2", "--url", scripted.url) == Ended(2, "deleted s1\n", said)


@pytest.mark.parametrize("job", ["", ".", "..", "grpo-run/checkpoint-10"])
@pytest.mark.parametrize("command", ["show", "cancel", "watch"])
def test_what_is_no_id_of_a_job_is_sent_nowhere(
    run: Run, scripted: ScriptedServer, command: str, job: str
) -> None:
    ended = run("jobs", command, job, "--url", scripted.url)
    assert ended.code == 2
    assert f"nextrapolate: {job!r} is not an id" in ended.err
    assert scripted.received == []


def test_a_job_that_does_not_exist_is_told_in_words_of_the_command(
    run: Run, scripted: ScriptedServer
) -> None:
    advice = "whatever the service advises"
    gone = problem(404, code="job-not-found", detail=f"there is no job j9: {advice}", advice=advice)
    scripted.on("GET", "/jobs/j9", gone)
    ended = run("jobs", "show", "j9", "--url", scripted.url)
    said = "there is no job j9: `nextrapolate jobs list` lists the existing ones"
    assert ended == Ended(2, "", f"nextrapolate: {said}\n")


def test_what_a_server_says_that_knows_no_advice_is_told_as_it_is(run: Run, scripted: ScriptedServer) -> None:
    detail = "there is no job j9: GET /jobs lists the existing ones"
    scripted.on("GET", "/jobs/j9", problem(404, code="job-not-found", detail=detail))
    ended = run("jobs", "show", "j9", "--url", scripted.url)
    assert ended == Ended(2, "", f"nextrapolate: {detail}\n")
