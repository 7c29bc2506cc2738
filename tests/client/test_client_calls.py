"""Requests, their repetition, and the errors that come of them: the same for both clients."""

import base64
import hashlib
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from fixtures.client_examples import a_job, a_report, write_checkpoints
from fixtures.reports import comparison, inspection
from fixtures.scripted_server import Answer, MakeClient, ScriptedServer, answer, hang_up, problem

from nextrapolate import (
    APIError,
    AuthenticationError,
    ConflictError,
    DownloadError,
    InvalidRequestError,
    JobCancelledError,
    JobCreate,
    JobFailedError,
    JobState,
    NextMethod,
    NextrapolateError,
    NotFoundError,
    ParameterError,
    QuotaExceededError,
    ServerError,
    ServiceUnreachable,
    __version__,
)
from nextrapolate.schemas import AnyReport, CheckpointRef, FileInfo
from nextrapolate.wire import retries

JOB = "/jobs/j1"
REQUEST = JobCreate(series="s1")


def test_key_and_path_are_sent(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("GET", "/jobs/a%20b%3F", answer(a_job()))
    make_client(scripted.url, "nx_1_secret").get_job("a b?")
    assert scripted.received[0].headers["authorization"] == "Bearer nx_1_secret"


@pytest.mark.parametrize(
    "misbehaviour",
    [
        hang_up,
        answer(b"<html>", 502),
        answer(b"<html>", 503),
        problem(429, retryable=True),
        problem(500, retryable=True),
    ],
    ids=["hang-up", "502", "503", "429", "retryable"],
)
def test_what_may_pass_is_tried_again(
    make_client: MakeClient, scripted: ScriptedServer, misbehaviour: Answer
) -> None:
    scripted.on("GET", JOB, misbehaviour, misbehaviour, answer(a_job()))
    assert make_client(scripted.url).get_job("j1").id == "j1"
    assert len(scripted.received) == 3


def test_a_server_that_is_away_between_calls_is_told_of(
    make_client: MakeClient, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on("GET", JOB, answer(a_job()), hang_up, hang_up, answer(a_job()))
    client = make_client(scripted.url)
    client.get_job("j1")
    client.get_job("j1")
    told = [record.getMessage() for record in caplog.records if record.name == "nextrapolate"]
    assert [line.partition(scripted.url)[0] for line in told] == ["no nextrapolate server answers at ", ""]
    assert told[0].endswith("; trying 5 more times")


def test_a_server_that_the_hub_does_not_answer_is_not_away(
    make_client: MakeClient, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on("POST", "/jobs", problem(424, retryable=True), answer(a_job(), 202))
    make_client(scripted.url).submit(REQUEST)
    assert len(scripted.received) == 2
    assert [record for record in caplog.records if record.name == "nextrapolate"] == []


@pytest.mark.parametrize("status", [400, 409, 422, 500, 507])
def test_what_will_not_pass_is_not_tried_again(
    make_client: MakeClient, scripted: ScriptedServer, status: int
) -> None:
    scripted.on("GET", JOB, problem(status))
    with pytest.raises(APIError):
        make_client(scripted.url).get_job("j1")
    assert len(scripted.received) == 1


def test_a_job_is_repeated_under_one_key(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("POST", "/jobs", hang_up, problem(503, retryable=True), answer(a_job(), 202))
    client = make_client(scripted.url)
    client.submit(REQUEST)
    client.submit(REQUEST)
    keys = [received.headers["idempotency-key"] for received in scripted.received]
    assert len(keys) == 4
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]
    for mine in ("m", "mine, the 2nd"):
        client.submit(REQUEST, idempotency_key=mine)
        assert scripted.received[-1].headers["idempotency-key"] == mine


@pytest.mark.parametrize("key", ["", "k" * 256, "é", "k\n", " k"])
def test_what_no_header_can_hold_is_no_key(
    make_client: MakeClient, scripted: ScriptedServer, key: str
) -> None:
    with pytest.raises(ParameterError, match="is no idempotency key: take 1 to 255 characters of ASCII"):
        make_client(scripted.url).submit(REQUEST, idempotency_key=key)
    assert scripted.received == []


class LaterJobCreate(JobCreate):
    """A request as a later version has it, with a field more."""

    priority: int = 0


def test_a_field_that_is_not_used_is_not_sent(make_client: MakeClient, scripted: ScriptedServer) -> None:
    """So an earlier server, which refuses what it does not know, takes what a later client asks for."""
    scripted.on("POST", "/jobs", answer(a_job(), 202))
    client = make_client(scripted.url)
    client.submit(LaterJobCreate(series="s1", method=NextMethod(preset="paper", alpha=1.0)))
    client.submit(LaterJobCreate(series="s1", priority=1))
    used = {"series": "s1", "task": "extrapolate"}
    assert [json.loads(received.body) for received in scripted.received] == [
        used | {"method": {"name": "next", "preset": "paper", "alpha": 1.0}},
        used | {"priority": 1},
    ]


def test_a_hub_token_goes_with_jobs_over_the_hub_alone(
    make_client: MakeClient, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.on("POST", "/jobs", answer(a_job()))
    scripted.on("GET", JOB, answer(a_job()))
    on_hub = JobCreate(checkpoints=[CheckpointRef(uri="hf://org/run@main/checkpoint-{10..20..10}")])
    monkeypatch.setenv("HF_TOKEN", "hf_for_others")
    make_client(scripted.url).submit(on_hub)
    client = make_client(scripted.url, hub_token="hf_mine")
    client.submit(on_hub)
    client.submit(REQUEST)
    client.get_job("j1")
    tokens = [received.headers.get("x-hub-token") for received in scripted.received]
    assert tokens == [None, "hf_mine", None, None]
    monkeypatch.setenv("NEXTRAPOLATE_HUB_TOKEN", "hf_of_the_environment")
    make_client(scripted.url).submit(on_hub)
    assert scripted.received[-1].headers["x-hub-token"] == "hf_of_the_environment"


def test_an_upload_is_repeated_whole(
    make_client: MakeClient, scripted: ScriptedServer, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 10_000
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(content)
    stored = answer({"bytes": len(content), "sha256": "-"})
    scripted.on("POST", "/series/s1/checkpoints/10", answer({"missing": ["adapter_model.safetensors"]}))
    scripted.on("PUT", "/series/s1/checkpoints/10/adapter_model.safetensors", hang_up, stored)
    make_client(scripted.url).put_file("s1", 10, "adapter_model.safetensors", path)
    digest = hashlib.sha256(content)
    announced, *sent = scripted.received
    assert json.loads(announced.body) == {"files": {"adapter_model.safetensors": digest.hexdigest()}}
    assert len(sent) == 2
    encoded = base64.b64encode(digest.digest()).decode()
    for received in sent:
        assert received.body == content
        assert received.headers["content-digest"] == f"sha-256=:{encoded}:"
        assert "transfer-encoding" not in received.headers


@pytest.mark.parametrize("how", ["seconds", "date"])
def test_retry_after_is_obeyed(make_client: MakeClient, scripted: ScriptedServer, how: str) -> None:
    started = time.monotonic()
    # A date has no fractions of a second: two seconds ahead is between one and two.
    value = (
        "1" if how == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    )
    scripted.on("GET", JOB, problem(503, retryable=True, headers={"Retry-After": value}), answer(a_job()))
    make_client(scripted.url).get_job("j1")
    assert 0.9 <= time.monotonic() - started < 10


def test_nobody_waits_for_an_hour(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("GET", JOB, problem(503, retryable=True, headers={"Retry-After": "3600"}))
    with pytest.raises(ServerError) as caught:
        make_client(scripted.url).get_job("j1")
    assert caught.value.retry_after == 3600


def test_the_client_gives_up(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("GET", JOB, problem(503, retryable=True, detail="no store"))
    with pytest.raises(ServerError, match="no store"):
        make_client(scripted.url).get_job("j1")
    assert len(scripted.received) == retries.ATTEMPTS


def test_no_server(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.stop()
    with pytest.raises(ServiceUnreachable, match="start one with `nextrapolate-server`"):
        make_client(scripted.url).methods()


def test_an_address_that_stays_silent_is_told_of_before_it_is_tried_again(
    make_client: MakeClient, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on("GET", "/methods", lambda handler: time.sleep(0.5))
    with pytest.raises(ServiceUnreachable, match="no nextrapolate server answers"):
        make_client(scripted.url, timeout=0.1).methods()
    (told,) = [record.getMessage() for record in caplog.records if record.name == "nextrapolate"]
    assert told.endswith("; trying 2 more times")


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    make_client: MakeClient, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    scripted.on("GET", JOB, answer(a_job()))
    assert make_client(scripted.url).get_job("j1").id == "j1"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, InvalidRequestError),
        (422, InvalidRequestError),
        (424, ServerError),
        (429, APIError),
        (500, ServerError),
        (507, ServerError),
    ],
)
def test_status_tells_the_error(
    make_client: MakeClient, scripted: ScriptedServer, status: int, kind: type[APIError]
) -> None:
    scripted.on("GET", JOB, problem(status, detail="because"))
    with pytest.raises(APIError, match="because") as caught:
        make_client(scripted.url).get_job("j1")
    assert type(caught.value) is kind
    assert caught.value.problem.request_id == "r1"


def test_a_series_is_deleted(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("DELETE", "/series/s1", answer(b"", 204))
    make_client(scripted.url).delete_series("s1")
    scripted.on("DELETE", "/series/s2", problem(404))
    with pytest.raises(NotFoundError):
        make_client(scripted.url).delete_series("s2")


def test_a_quota_is_an_error_of_its_own(make_client: MakeClient, scripted: ScriptedServer) -> None:
    full = problem(429, code="quota-exceeded", retryable=True, headers={"Retry-After": "0"})
    scripted.on("POST", f"{JOB}/cancel", full, answer(a_job()))
    assert make_client(scripted.url).cancel("j1").id == "j1"
    scripted.on("POST", "/series", problem(403, code="quota-exceeded", detail="it has 3 series, of 3"))
    with pytest.raises(QuotaExceededError, match=r"^it has 3 series, of 3$"):
        make_client(scripted.url).create_series("run")


@pytest.mark.parametrize("status", [200, 307, 404])
def test_another_server_at_the_address(
    make_client: MakeClient, scripted: ScriptedServer, status: int
) -> None:
    scripted.on("GET", JOB, answer(b"<html>It works!</html>", status))
    with pytest.raises(APIError, match="another server at this address"):
        make_client(scripted.url).get_job("j1")


def test_a_refused_upload_names_the_file(
    make_client: MakeClient, scripted: ScriptedServer, tmp_path: Path
) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(b"short")
    scripted.on("POST", "/series/s1/checkpoints/10", answer({"missing": ["adapter_model.safetensors"]}))
    scripted.on("PUT", "/series/s1/checkpoints/10/adapter_model.safetensors", problem(422))
    with pytest.raises(InvalidRequestError) as caught:
        make_client(scripted.url).put_file("s1", 10, "adapter_model.safetensors", path)
    assert str(path) in caught.value.__notes__[0]


def test_a_config_is_named_only_when_the_weights_are_there(
    make_client: MakeClient, scripted: ScriptedServer, tmp_path: Path
) -> None:
    """The service has it from an earlier checkpoint, and takes at once what is named and there."""
    path, model, config = "/series/s1/checkpoints/10", "adapter_model.safetensors", "adapter_config.json"
    folder = write_checkpoints(tmp_path, 10) / "checkpoint-10"
    lacks_it, has_it = answer({"missing": [model]}), answer({"missing": []})
    scripted.on("POST", path, lacks_it, lacks_it, has_it)
    scripted.on("PUT", f"{path}/{model}", problem(422), answer(FileInfo(bytes=1, sha256="-")))
    client = make_client(scripted.url)

    def named() -> list[str]:
        posted = [json.loads(received.body) for received in scripted.received if received.method == "POST"]
        return [name for body in posted for name in body["files"]]

    with pytest.raises(InvalidRequestError):
        client.put_checkpoint("s1", 10, folder)
    assert named() == [model]
    assert set(client.put_checkpoint("s1", 10, folder)) == {model, config}
    assert named() == [model, model, config]


def test_lists_follow_their_pages(make_client: MakeClient, scripted: ScriptedServer) -> None:
    def page(*ids: str, cursor: str | None) -> dict[str, object]:
        return {"items": [a_job(id=i).model_dump(mode="json") for i in ids], "next_cursor": cursor}

    scripted.on("GET", "/jobs", answer(page("j3", "j2", cursor="j2")), answer(page("j1", cursor=None)))
    client = make_client(scripted.url)
    assert [job.id for job in client.list_jobs(limit=10)] == ["j3", "j2", "j1"]
    assert [received.path for received in scripted.received] == ["/jobs?limit=10", "/jobs?limit=8&cursor=j2"]


@pytest.mark.parametrize("report", [a_report(), comparison(), inspection()], ids=lambda report: report.task)
def test_a_report_is_had_by_its_jobs_id_whatever_the_task(
    make_client: MakeClient, scripted: ScriptedServer, report: AnyReport
) -> None:
    scripted.on("GET", JOB, answer(a_job(JobState.SUCCEEDED)))
    scripted.on("GET", "/jobs/j1/report", answer(report))
    assert make_client(scripted.url).report("j1", type(report)) == report


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (JobState.RUNNING, DownloadError),
        (JobState.FAILED, JobFailedError),
        (JobState.CANCELLED, JobCancelledError),
    ],
)
def test_a_job_without_a_result_has_no_report(
    make_client: MakeClient, scripted: ScriptedServer, state: JobState, error: type[NextrapolateError]
) -> None:
    """It is said as of its files, and not asked for again, though to the service it may yet be."""
    scripted.on("GET", JOB, answer(a_job(state)))
    scripted.on("GET", "/jobs/j1/report", problem(409, code="job-not-succeeded", retryable=True))
    with pytest.raises(error):
        make_client(scripted.url).report("j1")
    assert [received.path for received in scripted.received] == [JOB]


def test_a_report_of_another_kind_is_named(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("GET", JOB, answer(a_job(JobState.SUCCEEDED)))
    scripted.on("GET", "/jobs/j1/report", answer(comparison()))
    with pytest.raises(ParameterError, match=r"j1 is not of kind Report: ask for kind=Comparison$"):
        make_client(scripted.url).report("j1")
    early = a_report().model_dump(mode="json", exclude={"task"})
    scripted.on("GET", "/jobs/j1/report", answer(early))
    assert make_client(scripted.url).report("j1") == a_report()
    scripted.on("GET", "/jobs/j1/report", answer(b"<html>"))
    with pytest.raises(ServerError, match="is there a proxy in between"):
        make_client(scripted.url).report("j1")


def test_an_answer_of_another_version_is_named(make_client: MakeClient, scripted: ScriptedServer) -> None:
    client = make_client(scripted.url)
    scripted.on("GET", JOB, answer(a_job(JobState.SUCCEEDED)))
    scripted.on("GET", "/jobs/j1/report", answer(a_report().model_dump(mode="json", exclude={"verdict"})))
    unread = rf"nextrapolate {__version__}, the version of this client, cannot read \(verdict: Field requir"
    with pytest.raises(ServerError, match=unread):
        client.report("j1")
    scripted.on("GET", JOB, answer({"state": "asleep"}))
    with pytest.raises(ServerError, match=r"cannot read \(id: Field required\): did another version"):
        client.get_job("j1")
