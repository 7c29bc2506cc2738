"""`nextrapolate-server rebuild`: the embedded server's Redis is gone, and nothing else is."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from fixtures.adapters import write_run
from fixtures.hatched_server import running_hatched_server
from fixtures.server import EmbeddedServer
from hatchery.server import Hatchery

pytestmark = pytest.mark.integration

SERVER = Path(sys.executable).parent / "nextrapolate-server"


def server_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SERVER, *arguments], capture_output=True, text=True, timeout=240, check=False)


def calls(server: EmbeddedServer) -> httpx.Client:
    return httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}, timeout=60
    )


def extrapolate(client: httpx.Client, run: Path) -> dict[str, object]:
    uris = [{"uri": f"file://{run}/checkpoint-{step}"} for step in range(10, 60, 10)]
    body = {"checkpoints": uris, "method": {"name": "weight-extrapolation"}}
    job: dict[str, object] = client.post("/jobs", json=body).json()
    deadline = time.monotonic() + 240
    while not job["finished_at"]:
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
        job = client.get(f"/jobs/{job['id']}").json()
    assert job["state"] == "succeeded", job
    return job


def until_there(record: Path) -> None:
    """Wait for what an API process writes down a moment after a job has ended."""
    deadline = time.monotonic() + 120
    while not record.exists():
        assert time.monotonic() < deadline, f"{record} was never written"
        time.sleep(0.1)


def test_a_server_that_has_lost_its_redis_says_so_and_is_brought_back(
    tmp_path: Path, hatchery: Hatchery
) -> None:
    run, data = write_run(tmp_path / "run", range(10, 60, 10)), tmp_path / "data"
    with running_hatched_server(tmp_path, hatchery) as server, calls(server) as client:
        job = extrapolate(client, run)
        refused = server_command("rebuild", "--data-dir", data)
        assert (refused.returncode, "stop it" in refused.stderr) == (1, True)
        until_there(data / "jobs" / str(job["id"]) / "end.json")
    shutil.rmtree(data / "redis")

    refused = server_command("--port", "0", "--data-dir", data)
    assert refused.returncode == 1
    assert "nextrapolate-server rebuild" in refused.stderr
    assert "Traceback" not in refused.stderr
    rebuilt = server_command("rebuild", "--data-dir", data)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "series 0, jobs as they ended 1, jobs queued again 0" in rebuilt.stdout
    again = server_command("rebuild", "--data-dir", data)
    assert (again.returncode, "--add-missing" in again.stderr) == (1, True)

    with running_hatched_server(tmp_path, hatchery) as server, calls(server) as client:
        assert client.get(f"/jobs/{job['id']}").json() == job
        assert client.get(f"/jobs/{job['id']}/adapter/adapter_model.safetensors").is_success
        extrapolate(client, run)


def test_a_folder_that_is_none_is_not_made(tmp_path: Path) -> None:
    refused = server_command("rebuild", "--data-dir", tmp_path / "typo")
    assert (refused.returncode, "--data-dir" in refused.stderr) == (1, True)
    assert not (tmp_path / "typo").exists()
