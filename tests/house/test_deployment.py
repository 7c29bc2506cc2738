"""docker-compose.yml and the Dockerfile, kept true by starting the same commands without Docker."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fixtures.ports import held_port
from redis import Redis

from nextrapolate import NExtClient
from nextrapolate_service.server.redis import find_redis_server

ROOT = Path(__file__).parents[2]
PASSWORD = "compose-test"
KEY = "nx_compose_0123456789abcdef"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    text = re.sub(r"\$\{REDIS_PASSWORD[^}]*\}", PASSWORD, (ROOT / "docker-compose.yml").read_text())
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r'"\1"', text)
    document: dict[str, Any] = yaml.safe_load(text)
    return document


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    with held_port() as redis_port, held_port() as api_port:
        yield redis_port, api_port


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(command, env=os.environ | environment) as process:
        try:
            yield
        finally:
            process.terminate()


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            if httpx.get(f"{url}/readyz", timeout=60).is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_image_starts_the_api(compose: dict[str, Any]) -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    instructions = dict(line.split(" ", 1) for line in lines if re.match(r"[A-Z]+ ", line))
    assert instructions["ENTRYPOINT"] == '["nextrapolate-server"]'
    assert yaml.safe_load(instructions["CMD"]) == compose["services"]["api"]["command"]
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    assert [source for sources in copied for source in sources if not (ROOT / source).exists()] == []


def test_the_builder_is_sent_what_it_copies_and_git_takes_no_secret() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [
        source
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY")
        for source in line.split()[1:-1]
    ]
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    written = re.findall(r"> (\S+)$", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)
    assert written == [".env", "secrets/api_key"]
    unseen = subprocess.run(["git", "check-ignore", *written], cwd=ROOT, capture_output=True, text=True)
    assert unseen.stdout.split() == written


def test_the_three_parts_need_each_other_as_written(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services.keys() - workers(compose).keys() == {"redis", "api"}
    api, worker = services["api"]["environment"], services["worker"]["environment"]
    shared = ("NEXTRAPOLATE_REDIS_URL", "NEXTRAPOLATE_DATA_DIR")
    assert [api[name] for name in shared] == [worker[name] for name in shared]
    assert services["api"]["volumes"] == services["worker"]["volumes"] == ["data:/data"]
    assert api["NEXTRAPOLATE_DATA_DIR"] == "/data"


def test_no_log_grows_for_ever(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["logging"] == {"driver": "local", "options": {"max-size": "50m", "max-file": "5"}}


def workers(compose: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in compose["services"].items() if name.startswith("worker")}


def test_each_worker_has_a_gpu_of_its_own_and_is_otherwise_the_same(compose: dict[str, Any]) -> None:
    gpus, profiles, rest = [], [], []
    for worker in workers(compose).values():
        (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        assert "count" not in device
        gpus += device["device_ids"]
        profiles.append(worker.get("profiles"))
        rest.append({name: worker[name] for name in worker.keys() - {"deploy", "profiles"}})
    assert gpus == ["0", "1", "2", "3"]
    assert profiles == [None, ["gpu-1"], ["gpu-2"], ["gpu-3"]]
    assert all(one == rest[0] for one in rest)


@pytest.mark.integration
def test_the_same_commands_run_a_job_without_docker(
    compose: dict[str, Any], run_folder: Path, tmp_path: Path, ports: tuple[int, int]
) -> None:
    services = compose["services"]
    redis_port, api_port = ports
    data, redis_data, key_file = tmp_path / "data", tmp_path / "redis", tmp_path / "api_key"
    redis_data.mkdir()
    key_file.write_text(KEY + "\n")
    replacements = {
        "@redis:6379": f"@127.0.0.1:{redis_port}",
        "/run/secrets/api_key": str(key_file),
        "0.0.0.0": "127.0.0.1",
        "8008": str(api_port),
    }

    def local(value: str) -> str:
        for there, here in replacements.items():
            value = value.replace(there, here)
        return str(data) if value == "/data" else value

    server = shutil.which("nextrapolate-server", path=Path(sys.executable).parent)
    assert server is not None
    redis_command = [str(find_redis_server(None)), *services["redis"]["command"][1:]]
    with ExitStack() as stack:
        stack.enter_context(
            running([*redis_command, "--port", str(redis_port), "--dir", str(redis_data)], environment={})
        )
        for name in ("api", "worker"):
            environment = {key: local(value) for key, value in services[name]["environment"].items()}
            command = [local(argument) for argument in services[name]["command"]]
            stack.enter_context(running([server, *command], environment))
        url = f"http://127.0.0.1:{api_port}"
        wait_until_ready(url)
        health = services["api"]["healthcheck"]["test"]
        assert health[:2] == ["CMD", "python"]
        subprocess.run([sys.executable, *map(local, health[2:])], check=True, timeout=60)
        redis = stack.enter_context(
            Redis.from_url(f"redis://:{PASSWORD}@127.0.0.1:{redis_port}", decode_responses=True)
        )
        assert redis.config_get("save") == {"save": ""}
        client = stack.enter_context(NExtClient(url, KEY))
        result = client.extrapolate(run_folder, method="weight-extrapolation", horizon_steps=20, timeout=300)
        assert result.report.target_step == 140
        assert (result.path / "adapter_model.safetensors").is_file()
