"""Jobs over hf:// and s3://, as far as the service goes: found, pinned, checked; weights are left alone."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.hub import Hub
from fixtures.problems import problem
from fixtures.s3 import Bucket

from nextrapolate_service.app import create_app
from nextrapolate_service.disk import find_space
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.records import HubFile, S3File
from nextrapolate_store.remote import buckets
from nextrapolate_store.remote.fetching import Fetcher
from nextrapolate_store.store import Store

MODEL, CONFIG_NAME = "adapter_model.safetensors", "adapter_config.json"
STEPS = (10, 20, 60)
RUN = "hf://org/run@main/checkpoint-{}"
LINE = {"name": "weight-extrapolation"}
TOKEN = "hf_of_the_caller"


def run_files() -> dict[str, bytes]:
    """A repository, or a bucket, with three checkpoints."""
    files = {f"checkpoint-{step}/{MODEL}": model_bytes(step) for step in STEPS}
    return files | {f"checkpoint-{step}/{CONFIG_NAME}": CONFIG for step in STEPS}


def checkpoints(form: str) -> list[dict[str, Any]]:
    return [{"uri": form.format(step)} for step in STEPS]


@pytest.fixture
def reader(settings: ServiceSettings, hub: Hub, bucket: Bucket, api_key: str) -> Iterator[TestClient]:
    """The service, allowed to read from both."""
    allowed = replace(settings, hub_endpoint=hub.url, s3_buckets=frozenset({bucket.name}))
    with TestClient(create_app(allowed), headers={"Authorization": f"Bearer {api_key}"}) as client:
        yield client


def submit(client: TestClient, uris: list[dict[str, Any]], **headers: str) -> Any:
    return client.post("/jobs", json={"checkpoints": uris, "method": LINE}, headers=headers)


def test_a_revision_is_the_commit_it_was_at_submit(reader: TestClient, hub: Hub, store: Store) -> None:
    commit = hub.push("org/run", "main", run_files())
    job = submit(reader, checkpoints(RUN)).json()
    assert job["steps"] == list(STEPS)
    hub.push("org/run", "main", {})
    inputs = store.jobs.get("tests", job["id"]).inputs
    for adapter in inputs.checkpoints:
        assert isinstance(adapter.model, HubFile)
        assert adapter.model.commit == commit
        assert adapter.model.bytes == len(model_bytes())
        assert store.blobs.path(adapter.config, "tests").read_bytes() == CONFIG
    assert hub.downloads() == [f"/org/run/resolve/{commit}/checkpoint-10/{CONFIG_NAME}"], "one of three alike"


def test_a_series_of_revisions(reader: TestClient, hub: Hub, store: Store) -> None:
    for step in STEPS:
        hub.push("org/run", f"step_{step}", {MODEL: model_bytes(step), CONFIG_NAME: CONFIG})
    hub.push("org/run", "step_30", {MODEL: model_bytes(30), CONFIG_NAME: CONFIG})
    answer = submit(reader, [{"uri": "hf://org/run@step_{10..30..10}"}, {"uri": "hf://org/run@step_60"}])
    assert answer.json()["steps"] == [10, 20, 30, 60]
    inputs = store.jobs.get("tests", answer.json()["id"]).inputs
    assert len({adapter.model.commit for adapter in inputs.checkpoints if adapter.model.kind == "hub"}) == 4


def test_what_was_fetched_is_noted_where_nobody_tells_its_digest_and_until_it_is_swept(
    reader: TestClient, hub: Hub, store: Store, settings: ServiceSettings
) -> None:
    hub.push("org/run", "main", run_files())
    adapter = store.jobs.get("tests", submit(reader, checkpoints(RUN)).json()["id"]).inputs.checkpoints[0]
    assert isinstance(adapter.model, HubFile)
    data = settings.store.data_dir
    Fetcher(data, "tests", hub_token=None).fetch(adapter.model, MODEL)
    noted = list((data / "fetched" / "tests").iterdir())
    assert len(noted) == 1, "the configuration's: the Hub tells the digest of weights"
    store.sweeper.sweep()
    assert noted[0].exists()
    store.blobs.path(adapter.config, "tests").unlink()
    store.sweeper.sweep()
    assert not noted[0].exists()


def test_the_callers_token_opens_a_private_repository(
    reader: TestClient, hub: Hub, store: Store, settings: ServiceSettings
) -> None:
    hub.push("org/run", "main", run_files())
    hub.tokens["org/run"] = TOKEN
    refused = problem(submit(reader, checkpoints(RUN)), 422, "checkpoint-not-found")
    assert "X-Hub-Token" in refused.detail
    problem(submit(reader, checkpoints(RUN), **{"X-Hub-Token": "hf_other"}), 422, "checkpoint-not-found")
    job = submit(reader, checkpoints(RUN), **{"X-Hub-Token": TOKEN}).json()

    assert store.credentials.get(job["id"], "hub-token") == TOKEN
    (kept,) = (settings.store.data_dir / "credentials").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    elsewhere = [path for path in settings.store.data_dir.rglob("*") if path.is_file() and path != kept]
    assert not any(TOKEN.encode() in path.read_bytes() for path in elsewhere)
    assert TOKEN not in reader.get(f"/jobs/{job['id']}").text

    reader.post(f"/jobs/{job['id']}/cancel")
    store.credentials.forget_over()
    assert not kept.exists()


def test_a_token_that_no_checkpoint_needs_is_not_kept(
    reader: TestClient, series_id: str, settings: ServiceSettings
) -> None:
    reader.post("/jobs", json={"series": series_id, "method": LINE}, headers={"X-Hub-Token": TOKEN})
    assert list((settings.store.data_dir / "credentials").iterdir()) == []


@pytest.mark.parametrize("token", ["", "two words", "ü", "x" * 513])
def test_a_token_that_is_none_is_refused_and_not_repeated(reader: TestClient, token: str) -> None:
    headers = {b"X-Hub-Token": token.encode()}
    answer = reader.post("/jobs", json={"checkpoints": checkpoints(RUN)}, headers=headers)
    assert problem(answer, 422, "invalid-request").errors[0]["field"] == "x-hub-token"
    assert not token or token not in answer.text


def test_a_configuration_that_changes_while_it_is_read_is_told(
    reader: TestClient, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(name: str, key: str) -> S3File:
        found = buckets.look_up(name, key)
        bucket.put(key, b"{}")  # by somebody else, between the look and the download
        return found

    for key, content in run_files().items():
        bucket.put(f"grpo/{key}", content)
    monkeypatch.setattr("nextrapolate_service.uris.buckets.look_up", look_up)
    answer = submit(reader, checkpoints(f"s3://{bucket.name}/grpo/checkpoint-{{}}"))
    assert "is no longer what it was" in problem(answer, 422, "checkpoint-changed").detail


def test_objects_are_pinned_by_their_tags(reader: TestClient, bucket: Bucket, store: Store) -> None:
    for key, content in run_files().items():
        bucket.put(f"grpo/{key}", content)
    job = submit(reader, [{"uri": f"s3://{bucket.name}/grpo/checkpoint-{step}"} for step in STEPS]).json()
    for step, adapter in zip(STEPS, store.jobs.get("tests", job["id"]).inputs.checkpoints, strict=True):
        assert isinstance(adapter.model, S3File)
        assert adapter.model.key == f"grpo/checkpoint-{step}/{MODEL}"
        assert adapter.model.etag
        assert store.blobs.path(adapter.config, "tests").read_bytes() == CONFIG


@pytest.mark.parametrize(
    ("uri", "code", "says"),
    [
        ("hf://org/none@main/a", "checkpoint-not-found", "org/none@main"),
        ("hf://org/run@nope/a", "checkpoint-not-found", "org/run@nope"),
        ("hf://org/run@main/a", "checkpoint-not-found", "a/adapter_config.json"),
        ("hf://org/r--un@main/a", "checkpoint-not-found", "cannot be on a Hub"),
        ("hf://org/run@main/pickled", "broken-adapter", "is a pickle"),
        ("hf://org/run@main/large", "refused-uri", "this server accepts at most 1048576"),
        ("hf://org/run@main/wordy", "refused-uri", "this server accepts at most 65536"),
        ("hf://org/run@main/dora", "unsupported-adapter", "use_dora"),
        ("hf://org/run@main/no-json", "broken-adapter", "not JSON"),
        ("s3://other-bucket/a", "refused-uri", "not one of the buckets"),
        ("s3://{bucket}/none", "checkpoint-not-found", "there is no s3://"),
        ("s3://{bucket}/pickled", "broken-adapter", "is a pickle"),
        ("s3://{bucket}/large", "refused-uri", "this server accepts at most 1048576"),
        ("s3://{bucket}/dora", "unsupported-adapter", "use_dora"),
        ("file:///etc/passwd", "refused-uri", "below the folders"),
        ("http://169.254.169.254/latest/meta-data", "refused-uri", "only file://"),
    ],
)
def test_what_cannot_be_used_is_said_at_submit(
    reader: TestClient, hub: Hub, bucket: Bucket, uri: str, code: str, says: str
) -> None:
    files = {
        f"pickled/{CONFIG_NAME}": CONFIG,
        "pickled/adapter_model.bin": b"\x80\x02",
        f"large/{CONFIG_NAME}": CONFIG,
        f"large/{MODEL}": bytes((1 << 20) + 1),
        f"wordy/{CONFIG_NAME}": bytes((64 << 10) + 1),
        f"wordy/{MODEL}": model_bytes(),
        f"dora/{CONFIG_NAME}": b'{"r": 2, "lora_alpha": 4, "use_dora": true}',
        f"dora/{MODEL}": model_bytes(),
        f"no-json/{CONFIG_NAME}": b"{",
        f"no-json/{MODEL}": model_bytes(),
    }
    hub.push("org/run", "main", files | run_files())
    if uri.startswith("s3://"):
        for key, content in files.items():
            bucket.put(key, content)
    second = {"uri": uri.format(bucket=bucket.name), "step": 20}
    found = problem(submit(reader, [*checkpoints(RUN)[:1], second]), 422, code)
    assert says in found.detail
    assert not any("/stored/" in path for path in hub.downloads()), "weights are a worker's to fetch"


def test_steps_are_judged_before_anybody_is_asked(reader: TestClient, hub: Hub) -> None:
    problem(submit(reader, [{"uri": RUN.format(step)} for step in (20, 10)]), 422, "step-order")
    problem(submit(reader, [{"uri": RUN.format(10)}]), 422, "too-few-checkpoints")
    assert hub.asked == []


def test_until_leaves_revisions_alone(reader: TestClient, hub: Hub) -> None:
    hub.push("org/run", "main", run_files())
    body = {
        "checkpoints": [{"uri": "hf://org/run@main/checkpoint-{10..60..10}"}],
        "until": 20,
        "method": LINE,
    }
    assert reader.post("/jobs", json=body).json()["steps"] == [10, 20]


def test_a_hub_that_does_not_answer_is_nobodys_fault_here(reader: TestClient, hub: Hub) -> None:
    hub.push("org/run", "main", run_files())
    hub.out_of_order = True
    answer = submit(reader, checkpoints(RUN))
    found = problem(answer, 424, "source-unavailable", blame="server")
    assert found.retryable
    assert answer.headers["Retry-After"] == "5"


def test_a_full_disk_is_not_the_hubs_fault(
    reader: TestClient, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nextrapolate_store.remote.hub.hf_hub_download", full)
    hub.push("org/run", "main", run_files())
    answer = submit(reader, checkpoints(RUN))
    assert answer.status_code == 507, answer.text


def test_a_bucket_that_does_not_answer(
    reader: TestClient, settings: ServiceSettings, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    allowed = replace(settings, s3_buckets=frozenset({"nobody-is-there"}))
    with TestClient(create_app(allowed), headers={"Authorization": f"Bearer {api_key}"}) as client:
        answer = submit(client, [{"uri": f"s3://nobody-is-there/{step}", "step": step} for step in STEPS])
    problem(answer, 424, "source-unavailable", blame="server")


def test_a_disk_without_room_for_the_weights_is_told(
    reader: TestClient, hub: Hub, settings: ServiceSettings, store: Store, api_key: str, tmp_path: Path
) -> None:
    hub.push("org/run", "main", run_files())
    reserve = find_space(settings).free_bytes - (64 << 20)
    tight = replace(settings, hub_endpoint=hub.url, disk_reserve_bytes=reserve, max_upload_bytes=1 << 40)
    hub.commits["org/run"] = {
        commit: {path: (_Huge() if path.endswith(MODEL) else data) for path, data in files.items()}
        for commit, files in hub.commits["org/run"].items()
    }
    with TestClient(create_app(tight), headers={"Authorization": f"Bearer {api_key}"}) as client:
        problem(submit(client, checkpoints(RUN)), 507, "disk-nearly-full", blame="server")


class _Huge(bytes):
    """Says that it is large, and is not."""

    def __len__(self) -> int:
        return 1 << 30
