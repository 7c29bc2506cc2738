"""The embedded server as its users meet it: a command that starts, holds, and leaves nothing behind."""

import json
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil
import pytest
from fixtures.adapters import write_run
from fixtures.hatched_server import running_hatched_server
from fixtures.server import EmbeddedServer, running_server
from hatchery.server import Hatchery
from redis import Redis

from nextrapolate_service.server import supervisor
from nextrapolate_service.server.embedded import run_embedded
from nextrapolate_service.server.redis import find_redis_server, running_redis_url

pytestmark = pytest.mark.integration

SERVER = Path(sys.executable).parent / "nextrapolate-server"
NO_PROGRAMS = {"PATH": str(Path(sys.executable).parent / "nowhere")}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of the test's own, for tests that break it."""
    with running_server(tmp_path) as server:
        yield server


def calls(server: EmbeddedServer) -> httpx.Client:
    return httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}, timeout=60
    )


def family(server: EmbeddedServer) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children(recursive=True)


def part(server: EmbeddedServer, word: str) -> psutil.Process:
    """The child with this word on its command line."""
    (found,) = [
        child
        for child in psutil.Process(server.process.pid).children()
        if any(word in argument for argument in child.cmdline())
    ]
    return found


def lives(process: psutil.Process) -> bool:
    """False for a zombie, too: whoever adopts the orphans of a killed server may bury them late."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not holds():
        assert time.monotonic() < deadline, "still not so after 180 s"
        time.sleep(0.05)


def says(server: EmbeddedServer, text: str) -> bool:
    return text in server.output.read_text()


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def submit(client: httpx.Client, run: Path, method: dict[str, object]) -> dict[str, object]:
    """Submit a job over the checkpoints below `run`."""
    checkpoints = sorted(run.iterdir(), key=lambda folder: int(folder.name.removeprefix("checkpoint-")))
    references = [{"uri": f"file://{folder}"} for folder in checkpoints]
    answer = client.post("/jobs", json={"checkpoints": references, "method": method})
    assert answer.status_code == 202, answer.text
    job: dict[str, object] = answer.json()
    return job


def extrapolate(client: httpx.Client, run: Path) -> dict[str, object]:
    """Run a job to its end."""
    path = f"/jobs/{submit(client, run, {'name': 'weight-extrapolation'})['id']}"
    eventually(lambda: client.get(path).json()["finished_at"] is not None)
    job: dict[str, object] = client.get(path).json()
    assert job["state"] == "succeeded", job
    return job


def test_it_keeps_its_key_to_itself_and_notes_where_it_is(embedded_server: EmbeddedServer) -> None:
    key_file = embedded_server.data_dir / "api_key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(embedded_server.data_dir.stat().st_mode) == 0o700
    notes = embedded_server.config_home / "nextrapolate" / "servers.json"
    assert stat.S_IMODE(notes.stat().st_mode) == 0o600
    assert json.loads(notes.read_text()) == {embedded_server.url: str(key_file)}
    assert embedded_server.api_key not in embedded_server.output.read_text()


def test_a_second_server_on_the_same_data_is_refused(embedded_server: EmbeddedServer) -> None:
    second = run_and_fail("--port", "0", "--data-dir", str(embedded_server.data_dir))
    assert f"another nextrapolate-server (process {embedded_server.process.pid})" in second
    assert "--data-dir" in second


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = run_and_fail("--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "--port" in said
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    said = run_and_fail("--port", "0", "--data-dir", str(tmp_path / "data"))
    assert f"{tmp_path}/data cannot be the data folder (Not a directory): choose another --data-dir" in said


def test_a_redis_that_is_no_program_leaves_no_folder_behind(tmp_path: Path) -> None:
    said = run_and_fail("--port", "0", "--data-dir", str(tmp_path / "data"), "--redis-server", "/nowhere")
    assert "/nowhere is not a program that can be run" in said
    assert list(tmp_path.iterdir()) == []


def test_it_tells_its_version() -> None:
    told = subprocess.run([SERVER, "--version"], capture_output=True, text=True, timeout=240, check=True)
    assert told.stdout == f"nextrapolate-server {version('nextrapolate')}\n"


def test_a_redis_that_does_not_run_is_told_with_its_log(tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho no memory; exit 3\n")
    broken.chmod(0o755)
    said = run_and_fail("--port", "0", "--data-dir", str(tmp_path / "data"), "--redis-server", str(broken))
    log = tmp_path / "data" / "logs" / "redis.log"
    assert f"redis ended with exit code 3: see {log}, which ends: no memory" in said
    assert log.read_text() == "no memory\n"


def test_short_of_its_reserve_it_starts_and_says_what_it_refuses(tmp_path: Path, hatchery: Hatchery) -> None:
    short = {"NEXTRAPOLATE_DISK_RESERVE_BYTES": str(1 << 62)}
    with running_hatched_server(tmp_path, hatchery, short) as server, calls(server) as client:
        assert client.get("/series").json()["items"] == []
        refusal = client.post("/series", json={"name": "run"})
        assert refusal.json()["code"] == "disk-nearly-full"
        assert client.get("/readyz").status_code == 503
        eventually(partial(says, server, "nothing new is accepted: the server's disk has "))
        eventually(partial(says, server, "new work is accepted once this is fixed"))


def test_while_redis_takes_no_writes_it_says_so_and_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_SILENT_SECONDS", 0.0)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    redis, data, said = tmp_path / "redis-server", tmp_path / "data", list[str]()
    redis.write_text(f'#!/bin/sh\nexec {find_redis_server(None)} "$@" --maxmemory 1\n')
    redis.chmod(0o755)

    def tell(sentence: str) -> None:
        said.append(sentence)
        if "Redis refuses this at the moment (OOM)" in sentence:
            with Redis.from_url(running_redis_url(data) or "") as client:
                client.config_set("maxmemory", 0)
        if "nextrapolate is ready" in sentence:
            signal.raise_signal(signal.SIGTERM)

    run_embedded(data_dir=data, port=0, workers=1, redis_server=redis, tell=tell)
    (reason,) = [sentence for sentence in said if "OOM" in sentence]
    assert reason.startswith("redis is not ready yet: ")
    assert reason.endswith(f"; waiting for it, see {data}/logs/redis.log")
    assert any(sentence.startswith("worker-1 is not ready yet: it does not answer; ") for sentence in said)
    assert any(sentence.startswith("nextrapolate is ready on ") for sentence in said)


def test_a_job_runs_and_its_data_survives_a_restart(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", range(10, 60, 10))
    with running_server(tmp_path) as server, calls(server) as client:
        job = extrapolate(client, run)
    with running_server(tmp_path, environment=NO_PROGRAMS) as again, calls(again) as client:
        assert again.api_key == server.api_key
        assert client.get(f"/jobs/{job['id']}").json() == job
        adapter = client.get(f"/jobs/{job['id']}/adapter/adapter_model.safetensors")
        assert adapter.is_success
        extrapolate(client, run)


def test_parts_that_die_come_back(tmp_path: Path, hatchery: Hatchery) -> None:
    run = write_run(tmp_path / "run", range(10, 60, 10))
    with running_hatched_server(tmp_path, hatchery) as server, calls(server) as client:
        for word, name in (("redis-server", "redis"), ("celery", "worker-1"), ("serving", "api")):
            part(server, word).kill()
            eventually(partial(says, server, f"see {server.data_dir}/logs/{name}.log"))
            eventually(lambda: is_ready(client))
            extrapolate(client, run)
    assert server.output.read_text().count("was ended by SIGKILL") == 3


def test_stopped_in_the_middle_of_a_job_it_gives_it_back_and_leaves_no_process_behind(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", range(10, 60, 10))
    with running_server(tmp_path) as server, calls(server) as client:
        job = submit(client, run, {"name": "next", "preset": "paper", "epochs": 100_000, "horizon_steps": 10})
        eventually(lambda: bool(client.get(f"/jobs/{job['id']}").json()["stage"] == "fit"))
        children = family(server)
        assert len(children) > 3  # the job has one, too
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert [child for child in children if lives(child)] == []
    assert "given back after" in (server.data_dir / "logs" / "worker-1.log").read_text()


def test_asked_twice_it_waits_for_nobody(server: EmbeddedServer) -> None:
    for word in ("celery", "redis-server"):
        part(server, word).suspend()
    children = family(server)
    server.process.send_signal(signal.SIGINT)
    eventually(lambda: says(server, "a second Ctrl-C stops at once"))
    started = time.monotonic()
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 0
    assert time.monotonic() - started < 15, "each of the two has ten seconds of grace"
    eventually(lambda: not any(lives(child) for child in children))


def test_killed_outright_it_leaves_no_process_behind(server: EmbeddedServer) -> None:
    children = family(server)
    assert len(children) >= 3
    server.process.kill()
    server.process.wait()
    eventually(lambda: not any(lives(child) for child in children))


def test_an_open_event_stream_does_not_hold_it_up(server: EmbeddedServer) -> None:
    run = write_run(server.data_dir.parent / "run", range(10, 60, 10))
    worker = part(server, "celery")
    worker.suspend()
    with calls(server) as client:
        job = submit(client, run, {"name": "weight-extrapolation"})
        with client.stream("GET", f"/jobs/{job['id']}/events") as events:
            lines = events.iter_lines()
            assert next(lines) == "event: queued"
            server.process.send_signal(signal.SIGINT)
            list(lines)  # to its end: one that has to be killed breaks it off
            worker.resume()  # or it would take its ten seconds of grace
            assert server.process.wait(60) == 0


def run_and_fail(*options: str) -> str:
    """What the command says when it does not start."""
    ended = subprocess.run([SERVER, *options], capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1, ended.stdout
    assert "Traceback" not in ended.stderr
    return ended.stderr
