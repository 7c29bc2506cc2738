"""What callers see while Redis is away, and what becomes of jobs whose worker went away."""

import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.problems import problem
from fixtures.redis import full, running, unable_to_save
from fixtures.store import INPUTS, REQUEST
from redis import Redis

from nextrapolate_service.app import create_app
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.wakeup import WakeUps
from nextrapolate_store.keys import new_key
from nextrapolate_store.queue import BROKER_LIST
from nextrapolate_store.recorder import Recorder
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quotas


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedRedis:
    """A Redis that the test may kill."""
    return EmbeddedRedis.prepare(find_redis_server(None), tmp_path_factory.mktemp("own"))


def submit(client: TestClient) -> str:
    """Submit a job over a series of two checkpoints."""
    series = client.post("/series", json={"name": "run"}).json()
    for step in (10, 20):
        folder = f"/series/{series['id']}/checkpoints/{step}"
        client.put(f"{folder}/adapter_config.json", content=CONFIG)
        client.put(f"{folder}/adapter_model.safetensors", content=model_bytes(step))
    body = {"series": series["id"], "method": {"name": "weight-extrapolation"}}
    return str(client.post("/jobs", json=body).json()["id"])


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.05)


def test_without_redis_it_answers_503_and_recovers(
    settings: ServiceSettings, own_redis: EmbeddedRedis, hasty_redis: None, api_key: str
) -> None:
    own_settings = replace(settings, store=replace(settings.store, redis_url=own_redis.url))
    app = create_app(own_settings)
    with (
        running(own_redis) as (_, process),
        TestClient(app, headers={"Authorization": f"Bearer {api_key}"}) as client,
    ):
        job_id = submit(client)
        store = Store.open(own_settings.store)
        assert store.jobs.claim(job_id, worker="test")
        process.kill()
        process.wait()
        requests = (
            partial(client.get, f"/jobs/{job_id}"),
            partial(client.get, f"/jobs/{job_id}/events"),
            partial(client.post, "/series", json={"name": "run"}),
            partial(client.put, "/series/x/checkpoints/1/adapter_config.json", content=CONFIG),
            partial(client.get, "/methods"),  # nobody knows whose key this is
        )
        for request in requests:
            answer = request()
            assert problem(answer, 503, "store-unavailable", blame="server").retryable
            assert answer.headers["Retry-After"]
        assert client.get("/livez").is_success
        assert client.get("/readyz").status_code == 503
        with running(own_redis):
            eventually(lambda: client.get("/readyz").is_success)
            # The reconciler has survived, too: it gives the job of the worker that never beat to another.
            eventually(lambda: bool(client.get(f"/jobs/{job_id}").json()["state"] == "queued"))
            store.close()


def test_a_redis_that_hangs_is_told_of_before_a_scrape_gives_up(
    settings: ServiceSettings, own_redis: EmbeddedRedis, api_key: str
) -> None:
    app = create_app(replace(settings, store=replace(settings.store, redis_url=own_redis.url)))
    with (
        running(own_redis) as (_, process),
        TestClient(app, headers={"Authorization": f"Bearer {api_key}"}) as client,
        ThreadPoolExecutor(50) as callers,
    ):
        assert "next_redis_up 1.0" in client.get("/metrics").text
        process.send_signal(signal.SIGSTOP)
        try:
            busy = [callers.submit(client.get, "/jobs") for _ in range(50)]  # more than there are threads
            time.sleep(0.2)
            started = time.monotonic()
            readiness, metrics = client.get("/readyz"), client.get("/metrics")
            took = time.monotonic() - started
        finally:
            process.send_signal(signal.SIGCONT)
        assert readiness.status_code == 503
        assert "Redis does not answer" in readiness.json()["checks"]["redis"]
        assert "next_redis_up 0.0" in metrics.text
        assert took < 10, "which is how long Prometheus waits for one of them"
        for answer in busy:
            answer.result(60)


@pytest.mark.parametrize(("refuses", "deleted"), [(full, 204), (unable_to_save, 503)])
def test_where_redis_takes_no_writes_what_needs_none_is_answered(
    client: TestClient,
    settings: ServiceSettings,
    refuses: Callable[[Redis], AbstractContextManager[None]],
    deleted: int,
) -> None:
    job = client.get(f"/jobs/{submit(client)}").json()
    series = f"/series/{job['series']}"
    with Redis.from_url(settings.store.redis_url, decode_responses=True) as redis, refuses(redis):
        assert client.get("/jobs").json()["items"][0]["id"] == job["id"]
        assert client.get(series).is_success
        readiness = client.get("/readyz")
        assert readiness.status_code == 503
        assert "Redis refuses this at the moment" in readiness.json()["checks"]["redis"]
        assert problem(
            client.post("/series", json={"name": "run"}), 503, "store-unavailable", blame="server"
        ).retryable
        assert client.delete(series).status_code == deleted
    assert client.get("/readyz").is_success
    assert client.delete(series).status_code == (404 if deleted == 204 else 204)


@pytest.mark.parametrize("is_mount_point", [True, False])
def test_while_the_data_folder_is_away_nothing_is_accepted_and_nothing_written(
    client: TestClient, settings: ServiceSettings, tmp_path: Path, is_mount_point: bool
) -> None:
    """Whether it is the mount point itself, or lies within what is mounted."""
    body = client.get(f"/jobs/{submit(client)}").json()
    series, folder = f"/series/{body['series']}", settings.store.data_dir
    folder.rename(tmp_path / "unmounted")
    if is_mount_point:
        folder.mkdir()
    for answer in (
        client.post("/jobs", json={"series": body["series"], "method": {"name": "none"}}),
        client.post("/series", json={"name": "run"}),
        client.put(f"{series}/checkpoints/30/adapter_config.json", content=CONFIG),
        client.post(f"{series}/jumps", json={"step": 20, "job": body["id"]}),
        client.delete(series),
    ):
        assert problem(answer, 503, "store-mismatched", blame="server").retryable
    metrics = client.get("/metrics").text
    assert "next_redis_up 1.0" in metrics
    assert ("next_disk_free_bytes" in metrics) == is_mount_point
    assert list(folder.rglob("*")) == []
    if is_mount_point:
        folder.rmdir()
    assert not folder.exists()
    (tmp_path / "unmounted").rename(folder)
    assert client.get(series).is_success
    assert submit(client)


def test_a_job_whose_worker_is_gone_is_queued_and_sent_again(
    client: TestClient, settings: ServiceSettings
) -> None:
    job_id = submit(client)
    store = Store.open(settings.store)
    with Redis.from_url(settings.store.redis_url) as redis:
        eventually(lambda: redis.llen(BROKER_LIST) >= 1)  # sent beside the answer; if late, again
        redis.delete(BROKER_LIST)  # as the worker did that took the message along
        assert store.jobs.claim(job_id, worker="test")
        eventually(lambda: bool(client.get(f"/jobs/{job_id}").json()["state"] == "queued"))
        eventually(lambda: redis.llen(BROKER_LIST) >= 1)
    assert [event.type for event in store.jobs.events(job_id, None)] == ["queued", "claimed", "requeued"]
    store.close()


def test_one_part_of_the_upkeep_that_fails_holds_up_no_other(
    settings: ServiceSettings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(recorder: Recorder) -> int:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(Recorder, "record_ends", fails)
    job = store.jobs.submit(
        "tests", REQUEST, INPUTS, idempotency_key=None, body_digest="", credentials={"hub-token": "hf_token"}
    )
    store.jobs.cancel("tests", job.id)
    with TestClient(create_app(settings)):
        eventually(lambda: store.credentials.get(job.id, "hub-token") is None)


@pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1/0"])
def test_a_wake_up_that_cannot_be_sent_holds_nobody_up(url: str, caplog: pytest.LogCaptureFixture) -> None:
    wake_ups = WakeUps(url)
    started = time.monotonic()
    wake_ups.send("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert time.monotonic() - started < 15
    wake_ups.close()
    assert "it will be sent again" in caplog.text


def test_a_redis_that_lost_everything_is_said_so_and_a_rebuild_is_enough(
    settings: ServiceSettings, api_key: str
) -> None:
    """The API goes on running all the while."""
    app = create_app(replace(settings, quotas=Quotas(series=2)))
    browser = TestClient(app)
    with (
        TestClient(app, headers={"Authorization": f"Bearer {api_key}"}) as client,
        Redis.from_url(settings.store.redis_url) as redis,
    ):
        made = client.post("/series", json={"name": "run"}).json()["id"]
        assert browser.post("/login", data={"key": api_key}, follow_redirects=False).status_code == 303
        redis.flushall()
        for answer in (
            client.get("/series"),
            client.post("/series", json={"name": "run"}),
            client.get("/jobs", headers={"Authorization": f"Bearer {new_key('nobody')}"}),
            browser.get("/jobs", headers={"Accept": "application/json"}),
        ):
            found = problem(answer, 503, "store-lost", blame="server")
            assert found.retryable
            assert "nextrapolate-server rebuild" in found.detail
            assert answer.headers["Retry-After"]
        assert client.get("/readyz").status_code == 503
        Store.rebuild(settings.store, add_missing=False)
        assert [series["id"] for series in client.get("/series").json()["items"]] == [made]
        eventually(lambda: redis.exists("next:quotas") == 1)
        assert client.post("/series", json={"name": "run"}).is_success
        problem(client.post("/series", json={"name": "run"}), 403, "quota-exceeded")


@pytest.mark.usefixtures("impatient")
def test_what_nobody_foresaw_is_said_so_and_waited_out(
    settings: ServiceSettings, api_key: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)
    with Redis.from_url(settings.store.redis_url) as redis:
        redis.set("next:schema_version", "two")
        with TestClient(app, headers={"Authorization": f"Bearer {api_key}"}) as client:
            eventually(lambda: "not ready: the store cannot be opened (ValueError(" in caplog.text)
            assert "Traceback" in caplog.text
            found = problem(client.get("/series"), 503, "store-unavailable", blame="server")
            assert "invalid literal for int() with base 10: 'two'" in found.detail
            redis.delete("next:schema_version")
            eventually(lambda: client.get("/readyz").is_success)


@pytest.mark.usefixtures("impatient")
def test_without_its_data_folder_an_api_is_not_ready(
    settings: ServiceSettings, api_key: str, tmp_path: Path
) -> None:
    """Neither one under which the volume goes away, nor one that starts on the empty place."""
    headers, folder = {"Authorization": f"Bearer {api_key}"}, settings.store.data_dir
    with TestClient(create_app(settings), headers=headers) as client:
        assert client.get("/readyz").is_success
        folder.rename(tmp_path / "unmounted")
        folder.mkdir()
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "mount the right one" in answer.json()["checks"]["redis"]
    with TestClient(create_app(settings), headers=headers) as client:
        found = problem(client.post("/series", json={"name": "run"}), 503, "store-mismatched", blame="server")
        assert found.retryable
        shutil.rmtree(folder)
        (tmp_path / "unmounted").rename(folder)
        eventually(lambda: client.get("/readyz").is_success)
