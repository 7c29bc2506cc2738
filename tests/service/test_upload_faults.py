"""Large uploads to a real server, and what its death or a full disk leaves of them."""

import hashlib
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import write_large_model
from fixtures.server import EmbeddedServer, api_process

from nextrapolate import NExtClient, ServerError
from nextrapolate.schemas import CheckpointFile
from nextrapolate.wire import retries
from nextrapolate_service.app import create_app
from nextrapolate_service.settings import ServiceSettings

pytestmark = pytest.mark.integration

MODEL: CheckpointFile = "adapter_model.safetensors"
MIB = 1 << 20


@pytest.fixture
def client(embedded_server: EmbeddedServer) -> Iterator[NExtClient]:
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        yield client


@pytest.fixture
def blobs(embedded_server: EmbeddedServer) -> Callable[[], dict[str, int]]:
    """Names and sizes of the uploads on the server's disk, finished or not."""
    folder = embedded_server.data_dir / "blobs"

    def listed() -> dict[str, int]:
        sizes = {}
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):  # an upload that has just got its own name
                if path.is_file() and path.name != ".lock":
                    sizes[path.name] = path.stat().st_size
        return sizes

    return listed


def peak_memory(process: psutil.Process) -> int:
    """The largest resident memory in bytes since `forget_peak`, or since the process began."""
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def forget_peak(process: psutil.Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def test_memory_does_not_grow_with_the_file(
    client: NExtClient, embedded_server: EmbeddedServer, tmp_path: Path
) -> None:
    series = client.create_series("large").id
    client.put_file(series, 1, MODEL, write_large_model(tmp_path / "small", MIB))
    api = api_process(embedded_server)
    forget_peak(api)
    before = peak_memory(api)
    path = write_large_model(tmp_path / "large", 128 * MIB)
    assert client.put_file(series, 2, MODEL, path).bytes == path.stat().st_size
    assert peak_memory(api) - before <= 64 * MIB


def test_an_upload_outlives_the_api(
    client: NExtClient,
    embedded_server: EmbeddedServer,
    blobs: Callable[[], dict[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed in the middle, it leaves nothing that could be taken for the file; the client sends it again."""
    monkeypatch.setattr(retries, "ATTEMPTS", 30)  # however long the API takes to come back
    path = write_large_model(tmp_path / "model", 400 * MIB)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    series, before = client.create_series("killed").id, blobs()
    api = api_process(embedded_server)
    uploading = threading.Thread(target=client.put_file, args=(series, 10, MODEL, path), daemon=True)
    uploading.start()
    while not any(size > 10 * MIB for name, size in blobs().items() if name not in before):
        assert uploading.is_alive()
        time.sleep(0.001)
    api.kill()
    left = blobs().keys() - before.keys()
    assert len(left) == 1
    assert next(iter(left)).startswith(".upload-")
    uploading.join(240)
    assert not uploading.is_alive()
    assert client.get_series(series).checkpoints[0].files[MODEL].sha256 == sha256
    assert blobs()[sha256] == path.stat().st_size


def test_a_disk_that_takes_no_more_is_told(
    client: NExtClient,
    embedded_server: EmbeddedServer,
    blobs: Callable[[], dict[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    api = api_process(embedded_server)
    _, hard = api.rlimit(resource.RLIMIT_FSIZE)
    series, before = client.create_series("full").id, blobs()
    api.rlimit(resource.RLIMIT_FSIZE, (4 * MIB, hard))
    try:
        with pytest.raises(ServerError, match=r"cannot write .*: free some space") as caught:
            client.put_file(series, 10, MODEL, write_large_model(tmp_path / "model", 8 * MIB))
    finally:
        api.rlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert (caught.value.problem.status, caught.value.problem.retryable) == (507, True)
    assert blobs() == before


def test_a_server_that_is_started_on_a_full_disk_lets_room_be_made(
    settings: ServiceSettings, api_key: str
) -> None:
    """Nothing but that could mend it from outside."""
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {api_key}"}) as client:
        series = client.post("/series", json={"name": "large"}).json()["id"]
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with TestClient(create_app(settings), headers={"Authorization": f"Bearer {api_key}"}) as client:
            assert client.get(f"/series/{series}").is_success
            assert client.delete(f"/series/{series}").status_code == 204
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
