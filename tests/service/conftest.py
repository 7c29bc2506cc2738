import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.webhooks import Receiver

from nextrapolate.schemas import AnyReport, FileInfo, SeriesCreate
from nextrapolate_service import app
from nextrapolate_service.app import create_app
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.keys import new_key
from nextrapolate_store.records import Claim
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_worker.rendering import report_page

API_KEY = new_key("tests")
STEPS = (10, 20, 60)


@pytest.fixture
def api_key() -> str:
    return API_KEY


@pytest.fixture
def settings(store_settings: StoreSettings, tmp_path: Path) -> ServiceSettings:
    key_file = tmp_path / "api_key"
    key_file.write_text(API_KEY + "\n")
    return ServiceSettings(
        store=replace(store_settings, lease_seconds=1),
        api_key_file=key_file,
        file_roots=(tmp_path / "runs",),
        hub_endpoint="http://127.0.0.1:9",  # where nobody listens: no test asks the real one
        max_upload_bytes=1 << 20,
        disk_reserve_bytes=0,
        reconcile_seconds=0.1,
    )


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no request come before a store has opened, however slow the machine."""
    monkeypatch.setattr(app, "_PATIENCE_SECONDS", 60.0)


@pytest.fixture
def impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let services start at once whose store does not open yet."""
    monkeypatch.setattr(app, "_PATIENCE_SECONDS", 0.1)


@pytest.fixture
def client(settings: ServiceSettings) -> Iterator[TestClient]:
    """The running service, to which every request is made with the right key."""
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {API_KEY}"}) as client:
        yield client


@pytest.fixture
def live_url(settings: ServiceSettings) -> Iterator[str]:
    """The service behind a real HTTP server: a test client can neither stream nor break off."""
    config = uvicorn.Config(create_app(settings), port=0, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (listener,) = server.servers[0].sockets
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def finish(store: Store) -> Callable[..., dict[str, bytes]]:
    """Does a worker's part on the real store: claims the job, beats, commits an adapter; gives its files."""

    def finish(job_id: str, report: AnyReport | None = None, claim: Claim | None = None) -> dict[str, bytes]:
        claim = claim or store.jobs.claim(job_id, worker="test")
        assert claim is not None
        files = {
            "adapter_model.safetensors": model_bytes(7),
            "adapter_config.json": CONFIG,
            "README.md": b"# made by a test\n",
            "report.json": b'{"verdict": "none"}',
        }
        if report is not None:
            files["report.json"] = report.model_dump_json().encode()
            files["report.html"] = report_page(report).encode()
        folder = store.job_folders.result_folder(job_id, claim.fence)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        infos = {
            name: FileInfo(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in files.items()
        }
        assert store.jobs.commit(job_id, claim.fence, infos)
        return files

    return finish


@pytest.fixture
def webhook_settings(settings: ServiceSettings) -> ServiceSettings:
    """Settings that let webhooks lie on this machine, and do not wait long."""
    here = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    return replace(settings, webhook_networks=here, webhook_pauses=(0.01, 0.01))


@pytest.fixture
def teller(webhook_settings: ServiceSettings, receiver: Receiver, api_key: str) -> Iterator[TestClient]:
    with TestClient(create_app(webhook_settings), headers={"Authorization": f"Bearer {api_key}"}) as client:
        yield client


@pytest.fixture
def stored_series(store: Store) -> str:
    """A series of the tenant with three whole checkpoints, without a service that took their uploads."""
    made = store.series.create("tests", SeriesCreate(name="run"))
    for step in STEPS:
        weights = store.blobs.put_bytes("tests", model_bytes(step))
        store.series.put_file("tests", made.id, step, "adapter_model.safetensors", weights)
        config = store.blobs.put_bytes("tests", CONFIG)
        store.series.put_file("tests", made.id, step, "adapter_config.json", config)
    return made.id


@pytest.fixture
def series_id(client: TestClient, stored_series: str) -> str:
    """The same series, beside a service that runs: how uploads come is test_uploads.py's."""
    return stored_series


@pytest.fixture
def uploaded_series(client: TestClient) -> str:
    """Such a series as a caller makes it, for tests of what is told of uploads."""
    created = client.post("/series", json={"name": "run"}).json()
    for step in STEPS:
        folder = f"/series/{created['id']}/checkpoints/{step}"
        assert client.put(f"{folder}/adapter_config.json", content=CONFIG).is_success
        assert client.put(f"{folder}/adapter_model.safetensors", content=model_bytes(step)).is_success
    return str(created["id"])
