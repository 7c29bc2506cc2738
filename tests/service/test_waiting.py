"""`Prefer: wait`: an answer when the job has ended, and nobody else's requests any slower for it."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.redis import running
from redis import Redis

from nextrapolate.schemas import SeriesCreate
from nextrapolate_service.app import create_app
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

Finish = Callable[[str], dict[str, bytes]]


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "still not so after 60 s"
        time.sleep(0.02)


def run_in(store: Store) -> dict[str, object]:
    """Put a series into the store, and give the request for a job over it."""
    series = store.series.create("tests", SeriesCreate(name="run")).id
    for step in (10, 20):
        config, model = (store.blobs.put_bytes("tests", content) for content in (CONFIG, model_bytes(step)))
        store.series.put_file("tests", series, step, "adapter_config.json", config)
        store.series.put_file("tests", series, step, "adapter_model.safetensors", model)
    return {"series": series, "method": {"name": "weight-extrapolation"}}


def test_prefer_wait_answers_with_the_end(client: TestClient, series_id: str, finish: Finish) -> None:
    def work() -> None:
        deadline = time.monotonic() + 60
        while not (queued := client.get("/jobs?state=queued").json()["items"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        finish(queued[0]["id"])

    worker = threading.Thread(target=work)
    worker.start()
    answer = client.post("/jobs", json={"series": series_id}, headers={"Prefer": "respond-async, wait=60"})
    worker.join()
    assert answer.headers["Preference-Applied"] == "wait=60"
    assert answer.json()["state"] == "succeeded"


def test_prefer_wait_ends_in_time(client: TestClient, series_id: str) -> None:
    started = time.monotonic()
    answer = client.post("/jobs", json={"series": series_id}, headers={"Prefer": "wait=1"})
    assert 1 <= time.monotonic() - started < 10
    assert answer.json()["state"] == "queued"
    ignored = client.post("/jobs", json={"series": series_id}, headers={"Prefer": "wait=-1"})
    assert "Preference-Applied" not in ignored.headers


@pytest.mark.parametrize("lines", [["Wait=0"], ["wait = 0"], ['wait="0"'], ["return=minimal", "wait=0"]])
def test_prefer_is_read_as_it_may_be_written(client: TestClient, series_id: str, lines: list[str]) -> None:
    headers = [("Prefer", line) for line in lines]
    answer = client.post("/jobs", json={"series": series_id}, headers=headers)
    assert answer.headers["Preference-Applied"] == "wait=0"


def calls(redis: Redis, command: str) -> int:
    """How often Redis was asked this since its start, or since its statistics were reset."""
    return int(redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_however_many_wait_they_look_together(
    live_url: str, store: Store, store_settings: StoreSettings, api_key: str
) -> None:
    """Each for itself, they would read their records over and over, on the threads of all other requests."""
    many, body, states = 50, run_in(store), list[str]()
    headers = {"Authorization": f"Bearer {api_key}", "Prefer": "wait=60"}

    def wait() -> None:
        answer = httpx.post(f"{live_url}/jobs", json=body, headers=headers, timeout=120)
        states.append(answer.json()["state"])

    threads = [threading.Thread(target=wait) for _ in range(many)]
    for thread in threads:
        thread.start()
    with Redis.from_url(store_settings.redis_url) as redis:
        eventually(lambda: redis.zcard("next:queued") == many)
        redis.config_resetstat()
        eventually(lambda: calls(redis, "zmscore") >= 10)
        assert calls(redis, "hgetall") < many
    for job in store.jobs.list("tests", limit=many, cursor=None)[0]:
        store.jobs.cancel("tests", job.id)
    for thread in threads:
        thread.join(60)
    assert states == ["cancelled"] * many


def test_who_waits_while_redis_goes_away_learns_of_his_job(
    settings: ServiceSettings, hasty_redis: None, tmp_path_factory: pytest.TempPathFactory, api_key: str
) -> None:
    own = EmbeddedRedis.prepare(find_redis_server(None), tmp_path_factory.mktemp("own"))
    settings = replace(settings, store=replace(settings.store, redis_url=own.url))
    headers = {"Authorization": f"Bearer {api_key}"}
    with (
        running(own) as (redis, process),
        TestClient(create_app(settings), headers=headers) as client,
    ):
        store = Store.open(settings.store)
        body = run_in(store)
        store.close()

        def kill() -> None:
            eventually(lambda: calls(redis, "zmscore") >= 1)  # the submit is answered, and the end looked for
            process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        answer = client.post("/jobs", json=body, headers={"Prefer": "wait=60"})
        killer.join()
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert answer.headers["Location"] == f"/jobs/{answer.json()['id']}"
