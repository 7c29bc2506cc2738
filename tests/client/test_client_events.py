"""Following a job over broken streams, restarts and silence: the same for both clients."""

import math
import re
import socket
import threading
import time

import pytest
from fixtures.client_examples import a_job, an_event
from fixtures.scripted_server import (
    Answer,
    Handler,
    MakeClient,
    ScriptedServer,
    answer,
    hang_up,
    keep_alive,
    problem,
    stream,
)

from nextrapolate import (
    DownloadError,
    JobCancelledError,
    JobFailedError,
    JobState,
    NotFoundError,
    ServiceUnreachable,
    WaitTimeoutError,
)
from nextrapolate.schemas import JobError, JobEvent, Stage
from nextrapolate.wire import events

JOB, EVENTS = "/jobs/j1", "/jobs/j1/events"
QUEUED = an_event(1, JobState.QUEUED)
FITTING = an_event(2, stage=Stage.FIT, progress=0.5)
DONE = an_event(3, JobState.SUCCEEDED)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the client's logger has said."""
    return [record.getMessage() for record in caplog.records if record.name == "nextrapolate"]


def test_events_to_the_last(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("GET", EVENTS, stream(QUEUED, FITTING, DONE))
    assert list(make_client(scripted.url).events("j1")) == [QUEUED, FITTING, DONE]
    assert "last-event-id" not in scripted.received[0].headers


def test_events_after_one(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("GET", EVENTS, stream(DONE))
    assert list(make_client(scripted.url).events("j1", after="2-0")) == [DONE]
    assert scripted.received[0].headers["last-event-id"] == "2-0"


def test_an_event_of_a_later_server_is_passed_over(make_client: MakeClient, scripted: ScriptedServer) -> None:
    later = FITTING.model_dump_json().replace('"fit"', '"distil"')

    def goes_on(handler: Handler) -> None:
        handler.write_chunk(f"id: {FITTING.id}\ndata: {later}\n\n".encode())
        hang_up(handler)

    scripted.on("GET", EVENTS, stream(QUEUED, then=goes_on), stream(DONE))
    assert list(make_client(scripted.url).events("j1")) == [QUEUED, DONE]
    assert scripted.received[1].headers["last-event-id"] == FITTING.id


@pytest.mark.parametrize(
    "interruption", [hang_up, problem(503, retryable=True), answer(b"", 502)], ids=["hang-up", "503", "502"]
)
def test_nothing_is_missed_or_comes_twice(
    make_client: MakeClient, scripted: ScriptedServer, interruption: Answer
) -> None:
    scripted.on(
        "GET", EVENTS, stream(QUEUED, then=hang_up), interruption, stream(FITTING, then=hang_up), stream(DONE)
    )
    assert list(make_client(scripted.url).events("j1")) == [QUEUED, FITTING, DONE]
    asked = [received.headers.get("last-event-id") for received in scripted.received]
    assert asked == [None, "1-0", "1-0", "2-0"]


@pytest.mark.parametrize(("timeout", "longest"), [(None, 600), (20, 20)])
def test_a_wait_outlives_a_restart_and_says_so_once(
    make_client: MakeClient,
    scripted: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    timeout: float | None,
    longest: int,
) -> None:
    def stop_for_a_while(handler: Handler) -> None:
        scripted.stop()
        threading.Timer(0.3, scripted.start).start()
        hang_up(handler)

    scripted.on("GET", EVENTS, stream(QUEUED, then=stop_for_a_while), stream(DONE))
    scripted.on("GET", JOB, answer(a_job(JobState.SUCCEEDED)))
    heard: list[JobEvent] = []
    job = make_client(scripted.url).wait("j1", timeout=timeout, on_event=heard.append)
    assert job.state is JobState.SUCCEEDED
    assert heard == [QUEUED, DONE]
    away, back = told(caplog)
    assert re.fullmatch(
        rf"no nextrapolate server answers at {scripted.url} \(.+\); "
        f"job j1 is not lost; waiting for the server for up to {longest} s",
        away,
    )
    assert re.fullmatch(rf"{scripted.url} answers again, after \d+ s", back)


def test_a_short_wait_at_a_server_that_is_well_tells_of_no_outage(
    make_client: MakeClient, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Though its connections are opened again and again, none of which may be silent beyond its end."""
    scripted.on(
        "GET", EVENTS, *(stream(event, then=keep_alive(0.2)) for event in (QUEUED, FITTING)), stream(DONE)
    )
    scripted.on("GET", JOB, answer(a_job(JobState.SUCCEEDED)))
    heard: list[JobEvent] = []
    make_client(scripted.url).wait("j1", timeout=20, on_event=heard.append)
    assert heard == [QUEUED, FITTING, DONE]
    assert [received.path for received in scripted.received] == [EVENTS, EVENTS, EVENTS, JOB]
    assert told(caplog) == []


def test_a_server_that_hangs_until_a_short_wait_ends_is_told_once(
    make_client: MakeClient,
    scripted: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "PROMPT", 0.01)
    scripted.on("GET", EVENTS, stream(QUEUED), lambda handler: time.sleep(30))
    scripted.on("GET", JOB, answer(a_job(JobState.RUNNING)))
    with pytest.raises(WaitTimeoutError):
        make_client(scripted.url).wait("j1", timeout=0.6)
    (away,) = told(caplog)
    assert away.endswith("; job j1 is not lost, but this wait for it has ended")


def test_the_rest_of_a_short_wait_is_told_in_seconds_that_are_left(
    make_client: MakeClient, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on("GET", EVENTS, stream(QUEUED), hang_up)
    scripted.on("GET", JOB, answer(a_job(JobState.RUNNING)))
    with pytest.raises(WaitTimeoutError):
        make_client(scripted.url).wait("j1", timeout=0.6)
    (away,) = told(caplog)
    assert away.endswith("; job j1 is not lost; waiting for the server for up to 1 s")


def test_patience_may_be_without_end(
    make_client: MakeClient, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on("GET", EVENTS, stream(QUEUED, then=hang_up), hang_up, stream(DONE))
    scripted.on("GET", JOB, answer(a_job(JobState.SUCCEEDED)))
    make_client(scripted.url, patience=math.inf).wait("j1")
    assert told(caplog)[0].endswith("; job j1 is not lost; waiting for the server")


def test_patience_ends(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("GET", EVENTS, stream(QUEUED, then=hang_up), hang_up)
    with pytest.raises(ServiceUnreachable, match="job j1 is not lost: `nextrapolate jobs watch j1`"):
        make_client(scripted.url, patience=0.2).wait("j1")


def test_a_server_that_never_answered_is_not_waited_for(make_client: MakeClient) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ServiceUnreachable, match="start one with"):
            make_client(url, patience=60).wait("j1")


def test_an_unknown_job_is_not_waited_for(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("GET", EVENTS, problem(404, detail="no job j1"))
    with pytest.raises(NotFoundError, match="no job j1"):
        make_client(scripted.url).wait("j1")


@pytest.mark.parametrize("resumed", [False, True])
def test_a_timeout_holds_while_only_comments_come(
    make_client: MakeClient, scripted: ScriptedServer, resumed: bool
) -> None:
    first = [stream(QUEUED, then=hang_up)] if resumed else []
    scripted.on("GET", EVENTS, *first, stream(then=keep_alive(seconds=30)))
    client = make_client(scripted.url)
    started = time.monotonic()
    with pytest.raises(WaitTimeoutError, match=r"job j1 is not finished after 0\.5 s"):
        client.wait("j1", timeout=0.5)
    assert time.monotonic() - started < 10


def test_a_timeout_holds_in_silence(
    make_client: MakeClient, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on("GET", EVENTS, stream(QUEUED, then=lambda handler: time.sleep(30)))
    client = make_client(scripted.url)
    started = time.monotonic()
    with pytest.raises(WaitTimeoutError):
        client.wait("j1", timeout=0.5)
    assert time.monotonic() - started < 10
    assert told(caplog) == []  # a job may have nothing to say for so long


def test_a_timeout_holds_without_a_server(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("GET", EVENTS, stream(QUEUED, then=hang_up), hang_up)
    with pytest.raises(WaitTimeoutError):
        make_client(scripted.url).wait("j1", timeout=0.3)


def test_a_finished_job_whose_events_are_gone(make_client: MakeClient, scripted: ScriptedServer) -> None:
    scripted.on("GET", EVENTS, stream())
    scripted.on("GET", JOB, answer(a_job(JobState.SUCCEEDED)))
    assert list(make_client(scripted.url).events("j1", after="3-0")) == []


def test_a_stream_that_ended_just_before_the_last_event(
    make_client: MakeClient, scripted: ScriptedServer
) -> None:
    scripted.on("GET", EVENTS, stream(QUEUED), stream(DONE))
    scripted.on("GET", JOB, answer(a_job(JobState.SUCCEEDED)))
    assert list(make_client(scripted.url).events("j1")) == [QUEUED, DONE]


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (JobState.FAILED, JobFailedError),
        (JobState.CANCELLED, JobCancelledError),
        (JobState.RUNNING, DownloadError),
    ],
)
def test_a_wait_tells_how_it_ended(
    make_client: MakeClient, scripted: ScriptedServer, state: JobState, kind: type[Exception]
) -> None:
    error = JobError(code="bad", detail="checkpoint 20 holds NaN", blame="user")
    scripted.on("GET", EVENTS, stream(DONE))
    scripted.on("GET", JOB, answer(a_job(state, error=error if state is JobState.FAILED else None)))
    with pytest.raises(kind, match="NaN" if state is JobState.FAILED else "j1"):
        make_client(scripted.url).wait("j1")
