"""The API alone, as a process: it starts before Redis does, and stops without losing anything."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.ports import held_port
from fixtures.redis import running
from httpx_sse import connect_sse

from nextrapolate import NExtClient
from nextrapolate.schemas import Stage
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_store.records import Beat
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

pytestmark = pytest.mark.integration

KEY = "nx_tests_0123456789abcdef"
JOB = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@dataclass(frozen=True)
class Api:
    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path

    def lines(self) -> list[dict[str, object]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as port:
        yield port


@contextmanager
def running_api(redis_url: str, folder: Path, port: int, **settings: str) -> Iterator[Api]:
    key_file, log = folder / "api_key", folder / "log"
    key_file.write_text(KEY)
    environment = {
        "NEXTRAPOLATE_REDIS_URL": redis_url,
        "NEXTRAPOLATE_DATA_DIR": str(folder / "data"),
        "NEXTRAPOLATE_API_KEY_FILE": str(key_file),
        "NEXTRAPOLATE_DISK_RESERVE_BYTES": "1",
        **settings,
    }
    program = Path(sys.executable).parent / "nextrapolate-server"
    command = [str(program), "api", "--port", str(port)]
    url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {KEY}"}
    with (
        log.open("wb") as stderr,
        subprocess.Popen(command, env=os.environ | environment, stderr=stderr) as process,
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):
        try:
            eventually(lambda: answers(client))
            yield Api(process, client, log)
        finally:
            process.kill()


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "still not so after 120 s"
        time.sleep(0.05)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").is_success
    except httpx.TransportError:
        return False


def ready(client: httpx.Client) -> bool:
    return client.get("/readyz").is_success


def submit(client: httpx.Client) -> tuple[str, str]:
    """Submit a job over a series of two checkpoints; gives the ids of both."""
    series = client.post("/series", json={"name": "run"}).json()["id"]
    for step in (10, 20):
        folder = f"/series/{series}/checkpoints/{step}"
        assert client.put(f"{folder}/adapter_config.json", content=CONFIG).is_success
        assert client.put(f"{folder}/adapter_model.safetensors", content=model_bytes(step)).is_success
    body = {"series": series, "method": {"name": "weight-extrapolation"}}
    return series, client.post("/jobs", json=body).json()["id"]


def test_it_starts_before_redis_and_is_ready_when_redis_is(tmp_path: Path, port: int) -> None:
    redis = EmbeddedRedis.prepare(find_redis_server(None), tmp_path / "own")
    with running_api(redis.url, tmp_path, port) as api:
        found = api.client.get("/readyz")
        assert (found.status_code, found.json()["ready"]) == (503, False)
        assert found.json()["checks"]["disk"] == found.json()["checks"]["blobs"] == "ok"
        refused = api.client.get(f"/jobs/{JOB}")
        assert (refused.status_code, refused.json()["code"]) == (503, "store-unavailable")
        eventually(lambda: "does not answer" in api.client.get("/readyz").json()["checks"]["redis"])
        with running(redis):
            eventually(lambda: ready(api.client))
            submit(api.client)
        assert [line["level"] for line in api.lines() if "not ready" in str(line["message"])] == ["ERROR"]


def test_asked_to_stop_it_ends_streams_and_lets_requests_finish(
    store_settings: StoreSettings, tmp_path: Path, port: int
) -> None:
    said: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
    following, uploading, rest = threading.Event(), threading.Event(), threading.Event()

    def upload() -> Iterator[bytes]:
        yield model_bytes()[:20]
        uploading.set()
        rest.wait(120)
        yield model_bytes()[20:]

    def follow() -> None:
        events = []
        with connect_sse(api.client, "GET", f"/jobs/{job}/events") as source:
            for event in source.iter_sse():
                events.append(event.event)
                following.set()
        said.put(("events", events))

    def wait() -> None:
        body = {"series": series, "method": {"name": "weight-extrapolation"}}
        answer = api.client.post("/jobs", json=body, headers={"Prefer": "wait=60"})
        said.put(("job", (answer.status_code, answer.json()["state"])))

    def put() -> None:
        path = f"/series/{series}/checkpoints/30/adapter_model.safetensors"
        said.put(("upload", api.client.put(path, content=upload()).status_code))

    with running_api(store_settings.redis_url, tmp_path, port) as api:
        series, job = submit(api.client)
        threads = [threading.Thread(target=target, daemon=True) for target in (follow, wait, put)]
        for thread in threads:
            thread.start()
        assert following.wait(60)
        assert uploading.wait(60)
        eventually(lambda: len(api.client.get("/jobs").json()["items"]) == 2)
        api.process.send_signal(signal.SIGTERM)
        assert dict(said.get(timeout=120) for _ in range(2)) == {"events": ["queued"], "job": (202, "queued")}
        assert api.process.poll() is None, "somebody is uploading still"
        rest.set()
        assert said.get(timeout=120) == ("upload", 200)
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
        assert api.process.wait(120) == -signal.SIGTERM
    store = Store.open(StoreSettings(store_settings.redis_url, tmp_path / "data"))
    assert 30 in store.series.get("tests", series).checkpoints
    store.close()


def test_who_follows_a_job_hears_all_of_it_over_a_restart(
    store_settings: StoreSettings, tmp_path: Path, port: int
) -> None:
    heard: list[str] = []
    url = store_settings.redis_url

    def follow() -> None:
        with NExtClient(f"http://127.0.0.1:{port}", KEY, patience=120) as client:
            heard.extend(event.id for event in client.events(job))

    def beat(part: float) -> None:
        assert store.jobs.beat(job, fence, stage=Stage.FIT, progress=part) is Beat.HELD

    with running_api(url, tmp_path, port) as api:
        _, job = submit(api.client)
        store = Store.open(StoreSettings(url, tmp_path / "data", lease_seconds=600))
        claim = store.jobs.claim(job, worker="test")
        assert claim is not None
        fence = claim.fence
        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        beat(0.1)
        time.sleep(0.5)
        api.process.send_signal(signal.SIGTERM)
        beat(0.3)
        api.process.wait(60)
    beat(0.4)
    with running_api(url, tmp_path, port):
        beat(0.5)
        store.jobs.commit(job, fence, {})
        follower.join(60)
        assert not follower.is_alive()
    assert heard == [event.id for event in store.jobs.events(job, None)]
    store.close()


def test_its_log_leads_from_a_request_to_its_job(
    store_settings: StoreSettings, tmp_path: Path, port: int
) -> None:
    with running_api(store_settings.redis_url, tmp_path, port) as api:
        _, job = submit(api.client)
        api.client.get(f"/jobs/{job}", headers={"X-Request-Id": "look-1"})
        api.client.get("/no%0Athing", headers={"X-Request-Id": "odd-1"})
        eventually(lambda: any(line.get("request_id") == "odd-1" for line in api.lines()))
        lines = {line["request_id"]: line for line in api.lines() if "request_id" in line}
        submitted = [line for line in lines.values() if line["message"] == "POST /jobs 202"]
        assert [line["job_id"] for line in submitted] == [job]
        assert (lines["look-1"]["job_id"], lines["look-1"]["status"]) == (job, 200)
        assert lines["odd-1"]["message"] == "GET /no%0Athing 404"
        assert KEY not in api.log.read_text()


@pytest.mark.parametrize(
    ("trusted", "secure", "address"),
    [("127.0.0.2, 10.0.0.0/8", True, "203.0.113.9"), ("", False, "127.0.0.2")],
)
def test_what_a_proxy_says_is_believed_where_it_is_trusted(
    store_settings: StoreSettings, tmp_path: Path, port: int, trusted: str, secure: bool, address: str
) -> None:
    proxy = httpx.HTTPTransport(local_address="127.0.0.2")
    forwarded = {
        "Accept": "text/html",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "198.51.100.1, 203.0.113.9, 10.1.2.3" if trusted else "203.0.113.9",
    }
    with (
        running_api(store_settings.redis_url, tmp_path, port, NEXTRAPOLATE_TRUSTED_PROXIES=trusted) as api,
        httpx.Client(base_url=api.client.base_url, transport=proxy, headers=forwarded) as browser,
    ):
        eventually(lambda: ready(api.client))
        answer = browser.post("/login", data={"key": KEY})
        assert answer.status_code == 303
        assert ("; Secure" in answer.headers["Set-Cookie"]) == secure
        audit = tmp_path / "data" / "audit"
        eventually(lambda: any(log.read_text() for log in audit.glob("*.jsonl")))
        (log,) = audit.glob("*.jsonl")
        assert json.loads(log.read_text())["address"] == address
