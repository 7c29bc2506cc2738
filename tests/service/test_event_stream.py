"""Server-Sent Events, cut and resumed: nothing is missed, and nothing comes twice."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import httpx
import pytest
from fastapi.testclient import TestClient
from fixtures.problems import problem
from httpx_sse import EventSource, ServerSentEvent, connect_sse
from redis import Redis

from nextrapolate.schemas import JobEvent, Stage
from nextrapolate_service.events import EventReader, pause
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.errors import KeyRevoked
from nextrapolate_store.keys import KeyText, Scope, new_key
from nextrapolate_store.store import Store

Finish = Callable[[str], dict[str, bytes]]

CUTS = 200
STEPS = 250
SECONDS = 240
"""Enough for a machine that is slow and busy with other things."""


@pytest.fixture
def job_id(client: TestClient, series_id: str) -> str:
    return str(client.post("/jobs", json={"series": series_id}).json()["id"])


@pytest.fixture
def caller(live_url: str, api_key: str) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=live_url, headers={"Authorization": f"Bearer {api_key}"}, timeout=60
    ) as caller:
        yield caller


def listen(caller: httpx.Client, job_id: str, after: str | None = None) -> Iterator[ServerSentEvent]:
    headers = {"Last-Event-ID": after} if after else {}
    with connect_sse(caller, "GET", f"/jobs/{job_id}/events", headers=headers) as source:
        yield from source.iter_sse()


def test_the_stream_ends_with_the_job(
    caller: httpx.Client, job_id: str, finish: Finish, store: Store
) -> None:
    finish(job_id)
    heard = list(listen(caller, job_id))
    assert [event.event for event in heard] == ["queued", "claimed", "succeeded"]
    assert [JobEvent.model_validate_json(event.data) for event in heard] == store.jobs.events(job_id, None)
    assert [event.id for event in heard] == [event.id for event in store.jobs.events(job_id, None)]
    assert [event.id for event in listen(caller, job_id, after=heard[-2].id)] == [heard[-1].id]


def test_who_has_the_last_event_is_told_not_to_come_back(
    caller: httpx.Client, job_id: str, finish: Finish, store: Store
) -> None:
    finish(job_id)
    last = store.jobs.events(job_id, None)[-1]
    answer = caller.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": last.id})
    assert (answer.status_code, answer.content) == (204, b"")


def test_cut_200_times_at_any_byte_and_resumed_it_misses_nothing(
    caller: httpx.Client, job_id: str, store: Store
) -> None:
    chance = random.Random(0)
    worker = threading.Thread(target=work, args=(store, job_id))
    worker.start()
    heard: list[ServerSentEvent] = []
    inside, deadline = 0, time.monotonic() + SECONDS
    while not (heard and heard[-1].event == "succeeded"):
        assert time.monotonic() < deadline
        arrived = listen_for(chance.randrange(500), caller, job_id, after=heard[-1].id if heard else None)
        heard += events_of(arrived)
        inside += not arrived.endswith(b"\n\n")
    worker.join()
    assert inside >= CUTS, "most of them fall inside an event"
    assert [event.id for event in heard] == [event.id for event in store.jobs.events(job_id, None)]


def listen_for(size: int, caller: httpx.Client, job_id: str, after: str | None) -> bytes:
    """Hear the first bytes of a stream, as one who is cut off after them."""
    headers = {"Last-Event-ID": after} if after else {}
    arrived = b""
    with caller.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.is_success
        for chunk in answer.iter_raw():
            arrived += chunk
            if len(arrived) >= size:
                break
    return arrived[:size]


def events_of(arrived: bytes) -> list[ServerSentEvent]:
    """What is whole of a stream that was cut off."""
    cut = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=arrived)
    return list(EventSource(cut).iter_sse())


def work(store: Store, job_id: str) -> None:
    """Make many steps of progress, then succeed."""
    claim = store.jobs.claim(job_id, worker="test")
    assert claim is not None
    for done in range(STEPS):
        store.jobs.beat(job_id, claim.fence, stage=Stage.FIT, progress=done / STEPS)
        time.sleep(0.002)
    store.jobs.commit(job_id, claim.fence, {})


@pytest.mark.parametrize("after", ["x", "1-2-3", "-1", "1' OR 1"])
def test_an_id_that_is_none_is_refused(client: TestClient, job_id: str, after: str) -> None:
    answer = client.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": after})
    problem(answer, 422, "invalid-cursor")


def test_a_quiet_stream_is_kept_alive(
    caller: httpx.Client, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nextrapolate_service.events.KEEP_ALIVE_SECONDS", 0.1)
    with caller.stream("GET", f"/jobs/{job_id}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert ": ping" in [next(lines) for _ in range(10)]


@pytest.fixture
def settings(settings: ServiceSettings, request: pytest.FixtureRequest) -> ServiceSettings:
    return replace(settings, event_streams=getattr(request, "param", settings.event_streams))


@pytest.mark.parametrize("settings", [3], indirect=True)
def test_a_tenant_may_follow_so_many_jobs_and_another_tenant_may_still(
    live_url: str, caller: httpx.Client, job_id: str, store: Store, finish: Finish
) -> None:
    path = f"/jobs/{job_id}/events"
    _, key = store.keys.create("others", [Scope.READ])
    with ExitStack() as opened:
        for _ in range(3):
            assert opened.enter_context(caller.stream("GET", path)).status_code == 200
        refused = caller.get(path)
        found = problem(refused, 429, "too-many-streams")
        assert (found.retryable, refused.headers["Retry-After"]) == (True, "10")
        assert "this tenant has 3 event streams open here" in found.detail
        others = caller.get(path, headers={"Authorization": f"Bearer {key}"})
        problem(others, 404, "job-not-found")  # and not 429
    finish(job_id)
    deadline = time.monotonic() + SECONDS
    while caller.get(path).status_code == 429:  # the server hears a little later that they were closed
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("settings", [3], indirect=True)
def test_what_is_refused_takes_no_place(caller: httpx.Client, job_id: str, finish: Finish) -> None:
    for _ in range(5):
        problem(caller.get("/jobs/nope/events"), 404, "job-not-found")
    finish(job_id)
    for _ in range(5):
        assert [event.event for event in listen(caller, job_id)][-1] == "succeeded"


def test_whoever_follows_a_short_job_hears_of_its_end_soon_after() -> None:
    assert pause(0.0) == 0.02
    assert pause(1.0) == pytest.approx(0.05)
    assert pause(3600.0) == 0.2


def test_streams_take_none_of_the_threads_that_requests_share(
    caller: httpx.Client, job_id: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: set[str] = set()
    read = EventReader.read

    def noted(reader: EventReader) -> tuple[list[JobEvent], bool]:
        readers.add(threading.current_thread().name.rpartition("_")[0])
        return read(reader)

    monkeypatch.setattr(EventReader, "read", noted)
    events = listen(caller, job_id)
    assert next(events).event == "queued"
    store.jobs.cancel("tests", job_id)
    assert [event.event for event in events] == ["cancelled"]
    assert readers == {"event-streams"}


def test_a_stream_ends_when_its_key_is_revoked(live_url: str, job_id: str, store: Store) -> None:
    record, key = store.keys.create("tests", [Scope.READ])
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=live_url, headers=headers, timeout=60) as guest:
        for number, event in enumerate(listen(guest, job_id)):
            assert (number, event.event) == (0, "queued")
            store.keys.revoke(record.id)
        answer = guest.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": event.id})
        problem(answer, 401, "key-revoked")


def test_a_stream_ends_when_redis_loses_its_job(
    caller: httpx.Client, job_id: str, settings: ServiceSettings
) -> None:
    with Redis.from_url(settings.store.redis_url) as redis:
        for number, event in enumerate(listen(caller, job_id)):
            assert (number, event.event) == (0, "queued")
            redis.delete(f"next:job:{job_id}")
    answer = caller.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": event.id})
    problem(answer, 404, "job-not-found")


def test_a_stream_does_not_go_on_with_another_key_of_the_same_id(
    job_id: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nextrapolate_service.events._CHECK_SECONDS", 0.0)
    opened = store.keys.adopt(KeyText.parse(new_key("tests2")), "tests", [Scope.READ])
    reader = EventReader(store, opened, job_id, after=None)
    assert reader.read()[0]
    store.keys.adopt(KeyText.parse(new_key("tests2")), "tests", [Scope.READ])
    with pytest.raises(KeyRevoked, match="replaced"):
        reader.read()
