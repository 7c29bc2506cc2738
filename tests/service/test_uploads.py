import base64
import errno
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.problems import problem
from redis import Redis

from nextrapolate_service import uploads
from nextrapolate_service.app import create_app
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store import quotas
from nextrapolate_store import series as stored_series
from nextrapolate_store.connection import RedisKey
from nextrapolate_store.journal import Journal
from nextrapolate_store.store import Store

MODEL = "adapter_model.safetensors"


@pytest.fixture
def empty(client: TestClient) -> str:
    """The path of a checkpoint of a series to which nothing was uploaded."""
    series = client.post("/series", json={"name": "run"}).json()
    return f"/series/{series['id']}/checkpoints/10"


def kept(settings: ServiceSettings) -> list[Path]:
    files = [path for path in (settings.store.data_dir / "blobs").rglob("*") if path.is_file()]
    return [path for path in files if path.name != ".lock"]


def digest(content: bytes) -> dict[str, str]:
    encoded = base64.b64encode(hashlib.sha256(content).digest()).decode()
    return {"Content-Digest": f"sha-256=:{encoded}:"}


def test_an_upload_is_kept_and_seen(client: TestClient, empty: str) -> None:
    content = model_bytes()
    assert client.head(f"{empty}/{MODEL}").status_code == 404
    info = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    for _ in range(2):  # the second time changes nothing
        answer = client.put(f"{empty}/{MODEL}", content=content, headers=digest(content))
        assert (answer.status_code, answer.json()) == (200, info)

    there = client.head(f"{empty}/{MODEL}")
    assert there.headers["ETag"] == f'"{info["sha256"]}"'
    assert there.headers["Content-Length"] == str(len(content))

    (checkpoint,) = client.get(empty.split("/checkpoints")[0]).json()["checkpoints"]
    assert checkpoint["files"] == {MODEL: info}
    assert "adapter_config.json has not arrived" in checkpoint["problems"][0]
    client.put(f"{empty}/adapter_config.json", content=CONFIG)
    (checkpoint,) = client.get(empty.split("/checkpoints")[0]).json()["checkpoints"]
    assert checkpoint["problems"] == []


def missing(client: TestClient, checkpoint: str, **files: bytes) -> list[str]:
    """Announce files under their names without the dots."""
    names = {"model": MODEL, "config": "adapter_config.json"}
    digests = {names[name]: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    answer = client.post(checkpoint, json={"files": digests})
    assert answer.status_code == 200, answer.text
    listed: list[str] = answer.json()["missing"]
    return listed


def test_what_is_stored_already_needs_no_second_transfer(
    client: TestClient, settings: ServiceSettings, empty: str
) -> None:
    content = model_bytes()
    assert missing(client, empty, model=content, config=CONFIG) == [MODEL, "adapter_config.json"]
    client.put(f"{empty}/{MODEL}", content=content)
    assert missing(client, empty, model=content, config=CONFIG) == ["adapter_config.json"]
    client.put(f"{empty}/adapter_config.json", content=CONFIG)

    other = client.post("/series", json={"name": "again"}).json()["id"]
    for _ in range(2):
        assert missing(client, f"/series/{other}/checkpoints/20", model=content, config=CONFIG) == []
    (checkpoint,) = client.get(f"/series/{other}").json()["checkpoints"]
    assert checkpoint["step"] == 20
    assert checkpoint["files"][MODEL]["sha256"] == hashlib.sha256(content).hexdigest()
    assert checkpoint["problems"] == []
    assert len(kept(settings)) == 2


def test_what_another_tenant_stored_has_to_be_sent(
    client: TestClient, store: Store, settings: ServiceSettings, empty: str
) -> None:
    store.blobs.put_bytes("somebody-else", model_bytes())
    assert missing(client, empty, model=model_bytes()) == [MODEL]
    client.put(f"{empty}/{MODEL}", content=model_bytes())
    assert len(kept(settings)) == 2


def test_an_announcement_of_other_content_is_a_conflict(client: TestClient, empty: str) -> None:
    client.put(f"{empty}/{MODEL}", content=model_bytes(1))
    digests = {MODEL: hashlib.sha256(model_bytes(2)).hexdigest()}
    problem(client.post(empty, json={"files": digests}), 409, "file-conflict")


def test_a_stored_file_is_checked_for_what_it_is_announced_as(client: TestClient, empty: str) -> None:
    client.put(f"{empty}/adapter_config.json", content=CONFIG)
    digests = {MODEL: hashlib.sha256(CONFIG).hexdigest()}
    problem(client.post(empty, json={"files": digests}), 422, "broken-adapter")
    (checkpoint,) = client.get(empty.split("/checkpoints")[0]).json()["checkpoints"]
    assert list(checkpoint["files"]) == ["adapter_config.json"]


@pytest.mark.parametrize(
    "files", [{}, {MODEL: "0" * 63}, {MODEL: "../" * 20 + "etc/passwd"}, {"x.bin": "0" * 64}]
)
def test_an_announcement_of_nothing_that_could_be_is_refused(
    client: TestClient, empty: str, files: dict[str, str]
) -> None:
    problem(client.post(empty, json={"files": files}), 422, "invalid-request")


def test_a_file_lost_from_the_disk_is_asked_for_again(
    client: TestClient, settings: ServiceSettings, empty: str
) -> None:
    client.put(f"{empty}/{MODEL}", content=model_bytes())
    (blob,) = kept(settings)
    blob.unlink()
    assert missing(client, empty, model=model_bytes()) == [MODEL]
    assert client.put(f"{empty}/{MODEL}", content=model_bytes()).is_success
    assert kept(settings) == [blob]


def test_a_series_has_an_end(client: TestClient, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_series, "_MOST_STEPS", 1)
    first, second = empty, f"{empty}0"
    for name, content in ((MODEL, model_bytes()), ("adapter_config.json", CONFIG)):
        assert client.put(f"{first}/{name}", content=content).is_success
    for _ in range(2):  # what is there may come again
        assert client.put(f"{first}/{MODEL}", content=model_bytes()).is_success
        assert missing(client, first, model=model_bytes()) == []
        digests = {MODEL: hashlib.sha256(model_bytes()).hexdigest()}
        found = problem(client.post(second, json={"files": digests}), 422, "series-full")
        assert found.detail.endswith("as many as a series may have: begin another series")
        problem(client.put(f"{second}/{MODEL}", content=model_bytes()), 422, "series-full")
    assert len(client.get(first.split("/checkpoints")[0]).json()["checkpoints"]) == 1


@pytest.mark.parametrize("announced", [True, False])
def test_other_content_for_the_same_step_is_a_conflict(
    client: TestClient, settings: ServiceSettings, empty: str, announced: bool
) -> None:
    client.put(f"{empty}/{MODEL}", content=model_bytes(1))
    other = model_bytes(2)
    answer = client.put(f"{empty}/{MODEL}", content=other, headers=digest(other) if announced else {})
    assert "does not change" in problem(answer, 409, "file-conflict").detail
    assert len(kept(settings)) == 1


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        (MODEL, b"PK\x03\x04" + bytes(99), "broken-adapter"),
        (MODEL, model_bytes()[:-1], "broken-adapter"),
        (MODEL, b"", "broken-adapter"),
        ("adapter_config.json", b"{", "broken-adapter"),
        ("adapter_config.json", b"\xff", "broken-adapter"),
        ("adapter_config.json", b"[]", "broken-adapter"),
        ("adapter_config.json", b'{"lora_alpha": 4}', "broken-adapter"),
        ("adapter_config.json", b'{"r": 2, "lora_alpha": 0}', "broken-adapter"),
        ("adapter_config.json", b'{"r": 2, "lora_alpha": 1e39}', "broken-adapter"),
        ("adapter_config.json", b'{"r": 2147483648, "lora_alpha": 4}', "broken-adapter"),
        ("adapter_config.json", b'{"r": 2, "lora_alpha": 4, "rank_pattern": {"(": 4}}', "broken-adapter"),
        ("adapter_config.json", b'{"r": 2, "lora_alpha": 4, "use_dora": true}', "unsupported-adapter"),
        ("adapter_config.json", b'{"r": 2, "lora_alpha": 4, "bias": "all"}', "unsupported-adapter"),
        (
            "adapter_config.json",
            b'{"r": 2, "lora_alpha": 4, "init_lora_weights": "pissa"}',
            "unsupported-adapter",
        ),
        (
            "adapter_config.json",
            b'{"r": 2, "lora_alpha": 4, "target_parameters": ["w"]}',
            "unsupported-adapter",
        ),
        ("adapter_config.json", b'{"peft_type": "IA3"}', "unsupported-adapter"),
    ],
)
def test_what_cannot_be_used_is_refused_and_not_kept(
    client: TestClient, settings: ServiceSettings, empty: str, name: str, content: bytes, code: str
) -> None:
    found = problem(client.put(f"{empty}/{name}", content=content), 422, code)
    assert found.errors[0]["field"]
    assert kept(settings) == []
    assert client.get(empty.split("/checkpoints")[0]).json()["checkpoints"] == []


@pytest.mark.parametrize("depth", range(950, 1000, 3))
def test_a_configuration_that_is_nested_too_deep_to_be_quoted_is_refused(
    client: TestClient, empty: str, depth: int
) -> None:
    config = f'{{"r": 2, "lora_alpha": 4, "bias": {"[" * depth}{"]" * depth}}}'
    assert client.put(f"{empty}/adapter_config.json", content=config).status_code == 422


@pytest.mark.parametrize(
    "dear",
    ["(?i:" + "[\u0100-\uffff]" * 150 + ")", "(?i:" + r"[\u0100-\uffff]" * 60 + ")", "x[!-~]" * 200],
    ids=["characters", "escapes", "long"],
)
def test_a_pattern_that_takes_long_to_compile_is_for_the_job_to_judge(
    client: TestClient, empty: str, dear: str
) -> None:
    config = {"r": 2, "lora_alpha": 4, "rank_pattern": {dear + "(": 4}}
    assert client.put(f"{empty}/adapter_config.json", json=config).is_success


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "optimizer.pt", "x" * 500])
def test_other_files_are_refused(client: TestClient, empty: str, name: str) -> None:
    found = problem(client.put(f"{empty}/{name}", content=b"x"), 422, "invalid-request")
    assert MODEL in found.detail


def test_a_wrong_digest_is_refused_and_not_kept(
    client: TestClient, settings: ServiceSettings, empty: str
) -> None:
    answer = client.put(f"{empty}/{MODEL}", content=model_bytes(1), headers=digest(model_bytes(2)))
    problem(answer, 422, "digest-mismatch")
    assert kept(settings) == []


@pytest.mark.parametrize("header", ["nonsense", "sha-256=abc", "sha-256=:AAAA:", "sha-256=:!:", ""])
def test_a_digest_that_cannot_be_read_is_refused(client: TestClient, empty: str, header: str) -> None:
    answer = client.put(f"{empty}/{MODEL}", content=model_bytes(), headers={"Content-Digest": header})
    problem(answer, 400, "malformed-header")


def test_digests_of_other_algorithms_are_left_alone(client: TestClient, empty: str) -> None:
    content = model_bytes()
    for header in ("sha-512=:AAAA:", f"sha-512=:AAAA:, {digest(content)['Content-Digest']}"):
        answer = client.put(f"{empty}/{MODEL}", content=content, headers={"Content-Digest": header})
        assert answer.is_success


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(("name", "size"), [(MODEL, (1 << 20) + 1), ("adapter_config.json", (64 << 10) + 1)])
def test_what_is_too_large_is_refused_and_not_kept(
    client: TestClient, settings: ServiceSettings, empty: str, name: str, size: int, announced: bool
) -> None:
    start = model_bytes() if name == MODEL else b"{"
    content = start + bytes(size - len(start))
    body: bytes | Iterator[bytes] = content if announced else iter([content[:-1], content[-1:]])
    problem(client.put(f"{empty}/{name}", content=body), 413, "body-too-large")
    assert kept(settings) == []


def test_a_run_has_a_name_that_can_be_seen(client: TestClient) -> None:
    assert client.post("/series", json={"name": "  grpo run\n"}).json()["name"] == "grpo run"
    for unseen in ("   ", "\u200b\u202e", "\u3000\t"):
        answer = client.post("/series", json={"name": unseen})
        assert answer.status_code == 422
        assert "visible character" in answer.text


def test_an_unknown_series_and_a_strange_step_are_refused(client: TestClient, empty: str) -> None:
    for series in ("nope", "01ARZ3NDEKTSV4RRFFQ69G5FAV"):
        answer = client.put(f"/series/{series}/checkpoints/1/{MODEL}", content=model_bytes())
        problem(answer, 404, "series-not-found")
    for step in ("-1", "x", "1e3", str(2**53), "9" * 5000):
        problem(client.put(empty.replace("/10", f"/{step}") + f"/{MODEL}"), 422, "invalid-request")


def test_a_full_disk_is_told_before_anything_is_written(
    client: TestClient, settings: ServiceSettings, api_key: str
) -> None:
    made = f"/series/{client.post('/series', json={'name': 'run'}).json()['id']}"
    full = replace(settings, disk_reserve_bytes=1 << 62)
    with TestClient(create_app(full), headers={"Authorization": f"Bearer {api_key}"}) as client:
        answer = client.post("/series", json={"name": "run"})
        assert problem(answer, 507, "disk-nearly-full", blame="server").retryable
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "reserve" in answer.json()["checks"]["disk"]
        assert client.get(made).is_success
        assert client.delete(made).status_code == 204


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_broken_disk_is_not_a_mistake_of_ours(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def failing(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Journal, "write_series", failing)
    found = problem(client.post("/series", json={"name": "run"}), 503, "disk-broken", blame="server")
    assert found.retryable
    assert os.strerror(code) in found.detail


def test_twenty_uploads_of_one_file_at_once_are_one_blob(
    client: TestClient, settings: ServiceSettings, empty: str
) -> None:
    with ThreadPoolExecutor(20) as pool:
        puts = [pool.submit(client.put, f"{empty}/{MODEL}", content=model_bytes()) for _ in range(20)]
    assert {put.result().status_code for put in puts} == {200}
    assert len(kept(settings)) == 1


def test_an_upload_that_comes_slowly_keeps_its_hold(
    live_url: str, settings: ServiceSettings, empty: str, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little has come of it."""
    monkeypatch.setattr(uploads, "_TAKE_EVERY_SECONDS", 0.1)
    monkeypatch.setattr(quotas, "_RENEW_SECONDS", 0.0)
    address = urlsplit(live_url)
    with (
        socket.create_connection((address.hostname, address.port)) as connection,
        Redis.from_url(settings.store.redis_url) as redis,
    ):
        connection.sendall(
            f"PUT {empty}/{MODEL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api_key}\r\n"
            f"Content-Length: 100000\r\n\r\n".encode()
        )
        ends = set()
        for byte in model_bytes()[:100]:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
            ends |= {
                end for _, end in redis.zrange(RedisKey.TENANT_HOLD_ENDS + "tests", 0, -1, withscores=True)
            }
    assert len(ends) > 2


def test_a_caller_who_leaves_half_way_leaves_nothing(
    client: TestClient, live_url: str, settings: ServiceSettings, empty: str, api_key: str
) -> None:
    address = urlsplit(live_url)
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(
            f"PUT {empty}/{MODEL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api_key}\r\n"
            f"Content-Length: 100000\r\n\r\n".encode()
            + model_bytes()[:50]
        )
        eventually_kept(settings, 1)
    eventually_kept(settings, 0)


def eventually_kept(settings: ServiceSettings, files: int) -> None:
    deadline = time.monotonic() + 60
    while len(kept(settings)) != files:
        assert time.monotonic() < deadline
        time.sleep(0.01)
