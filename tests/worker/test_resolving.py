"""Stage 1 of a job, in this process: files that lie at a Hub, in a bucket, or on the disk."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures.adapter_bytes import CONFIG, header, model_bytes, with_header
from fixtures.hub import Hub
from fixtures.s3 import Bucket
from huggingface_hub.utils import _http

from nextrapolate.schemas import JobCreate
from nextrapolate_service.uris.disk import FileRoots, pin
from nextrapolate_store.blobs import BlobStore, uncounted
from nextrapolate_store.records import FileSource, HubFile, InputAdapter, JobInputs, RemoteFile, Source
from nextrapolate_store.remote.buckets import look_up
from nextrapolate_store.remote.hub import snapshot
from nextrapolate_worker import resolving
from nextrapolate_worker.errors import (
    CheckpointChanged,
    CheckpointGone,
    CheckpointLost,
    CheckpointUnsupported,
    CheckpointUnusable,
    SourceUnavailable,
    as_job_error,
    is_final,
)
from nextrapolate_worker.messages import Start
from nextrapolate_worker.resolving import Resolved, resolve
from nextrapolate_worker.settings import Computing

MODEL = "adapter_model.safetensors"
STEPS = (10, 20, 60)
TOKEN = "hf_of_the_caller"

Work = Callable[..., Start]


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    for part in ("blobs", "fetched"):
        (tmp_path / "data" / part).mkdir(parents=True)
    return BlobStore(tmp_path / "data", uncounted)


@pytest.fixture
def work(tmp_path: Path, blobs: BlobStore) -> Work:
    """Makes an attempt at a job over these weights, all with one configuration."""
    attempts = iter(range(9))

    def work(*models: Source, token: str | None = None) -> Start:
        config = FileSource("blob", blobs.put_bytes("default", CONFIG).sha256)
        adapters = [InputAdapter(step, model, config) for step, model in zip(STEPS, models, strict=False)]
        folder = tmp_path / f"attempt-{next(attempts)}"
        folder.mkdir()
        return Start(
            job="01JGFJJZ00ABCDEFGHJKMNPQRS",
            fence=1,
            tenant="default",
            request=JobCreate(series="s"),
            inputs=JobInputs(tuple(adapters)),
            data_dir=tmp_path / "data",
            folder=folder,
            stages=tmp_path / "stages",
            computing=Computing(device="cpu", threads=1),
            hub_token=token,
        )

    return work


def resolved(work: Start) -> Resolved:
    """Resolve, and hold it to what every way of resolving promises."""
    told: list[float] = []
    found = resolve(work, told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    assert len(told) >= len(found.digests)
    assert list(work.folder.iterdir()) == [], "nothing stays behind among the artifacts"
    for step, checkpoint in zip(STEPS, found.checkpoints, strict=False):
        assert checkpoint.model.read_bytes() == model_bytes(step)
        assert found.digests[step] == hashlib.sha256(model_bytes(step)).hexdigest()
    return found


def temporary(blobs_folder: Path) -> list[Path]:
    return [path for path in blobs_folder.rglob(".*") if path.name != ".lock"]


@pytest.fixture
def on_hub(hub: Hub) -> list[RemoteFile]:
    """The weights of three checkpoints in a private repository."""
    hub.push("org/run", "main", {f"{step}/{MODEL}": model_bytes(step) for step in STEPS})
    hub.tokens["org/run"] = TOKEN
    files = snapshot(hub.url, "org/run", "main", TOKEN).files
    hub.asked.clear()
    return [files[f"{step}/{MODEL}"] for step in STEPS]


@pytest.fixture
def in_bucket(bucket: Bucket) -> list[RemoteFile]:
    """The weights of three checkpoints in a bucket."""
    for step in STEPS:
        bucket.put(f"{step}/{MODEL}", model_bytes(step))
    return [look_up(bucket.name, f"{step}/{MODEL}") for step in STEPS]


def test_weights_of_a_hub_are_fetched_once(hub: Hub, on_hub: list[RemoteFile], work: Work) -> None:
    resolved(work(*on_hub, token=TOKEN))
    stored = [f"/stored/{hashlib.sha256(model_bytes(step)).hexdigest()}" for step in STEPS]
    assert sorted(hub.downloads()) == sorted(stored)
    tokens = {asked.path.startswith("/stored/"): asked.token for asked in hub.asked}
    assert tokens == {False: TOKEN, True: None}, "the token is for the Hub, not for its storage"
    resolved(work(*on_hub))
    assert len(hub.downloads()) == len(STEPS)


def test_a_fetch_that_takes_long_says_that_it_goes_on(
    on_hub: list[RemoteFile], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the worker would take the child for one that hangs."""
    monkeypatch.setattr(resolving, "_SPEAKS_EVERY_SECONDS", 0.0)
    told: list[float] = []
    resolve(work(*on_hub, token=TOKEN), told.append)
    assert told[:2] == [0, 0]


def test_weights_that_were_uploaded_are_not_fetched(
    hub: Hub, on_hub: list[RemoteFile], work: Work, blobs: BlobStore
) -> None:
    for step in STEPS:
        blobs.put_bytes("default", model_bytes(step))
    resolved(work(*on_hub))
    assert hub.asked == []


def test_what_another_tenant_has_is_fetched(
    hub: Hub, on_hub: list[RemoteFile], work: Work, blobs: BlobStore
) -> None:
    for step in STEPS:
        blobs.put_bytes("other", model_bytes(step))
    with pytest.raises(CheckpointGone, match="X-Hub-Token"):
        resolve(work(*on_hub), lambda _: None)


def test_a_download_that_breaks_off_goes_on(hub: Hub, on_hub: list[RemoteFile], work: Work) -> None:
    hub.breaks_off.release()
    resolved(work(*on_hub, token=TOKEN))
    assert len(hub.downloads()) == len(STEPS) + 1


def test_the_next_attempt_keeps_what_the_last_one_fetched(
    hub: Hub, on_hub: list[RemoteFile], work: Work, blobs: BlobStore, tmp_path: Path
) -> None:
    lost = hashlib.sha256(model_bytes(STEPS[1])).hexdigest()
    hub.lost = {lost}
    with pytest.raises(CheckpointGone, match="checkpoint 20: "):
        resolve(work(*on_hub, token=TOKEN), lambda _: None)
    assert temporary(tmp_path) == []
    hub.lost.clear()
    hub.asked.clear()
    fetched = [step for step in STEPS if blobs.find("default", hashlib.sha256(model_bytes(step)).hexdigest())]
    resolved(work(*on_hub, token=TOKEN))
    assert len(hub.downloads()) == len(STEPS) - len(fetched)
    assert STEPS[1] not in fetched


def test_objects_are_fetched_once_and_stay_what_they_were(
    bucket: Bucket, in_bucket: list[RemoteFile], work: Work
) -> None:
    resolved(work(*in_bucket))
    for step in STEPS:
        bucket.delete(f"{step}/{MODEL}")
    resolved(work(*in_bucket))


def test_an_object_that_was_replaced_is_not_taken(
    bucket: Bucket, in_bucket: list[RemoteFile], work: Work
) -> None:
    bucket.put(f"20/{MODEL}", model_bytes(99))
    with pytest.raises(CheckpointChanged, match=r"checkpoint 20: s3://.* is no longer") as changed:
        resolve(work(*in_bucket), lambda _: None)
    assert is_final(changed.value)
    bucket.delete(f"20/{MODEL}")
    with pytest.raises(CheckpointGone, match=r"checkpoint 20: there is no s3://"):
        resolve(work(*in_bucket), lambda _: None)


def test_a_worker_that_may_not_read_what_was_found_costs_an_attempt(
    bucket: Bucket, in_bucket: list[RemoteFile], work: Work
) -> None:
    """Its credentials may be other ones than the API's."""
    bucket.forbid_downloads()
    with pytest.raises(SourceUnavailable, match=r"checkpoint 10: .* may not read s3://.* AWS_") as refused:
        resolve(work(in_bucket[0]), lambda _: None)
    assert not is_final(refused.value)


def test_fetched_weights_are_checked_as_uploads_are(bucket: Bucket, work: Work, tmp_path: Path) -> None:
    bucket.put(f"10/{MODEL}", b"PK\x03\x04" + bytes(100))
    with pytest.raises(CheckpointUnusable, match=r"checkpoint 10: .* zip archive") as unusable:
        resolve(work(look_up(bucket.name, f"10/{MODEL}")), lambda _: None)
    assert is_final(unusable.value)
    assert temporary(tmp_path) == []


def test_a_feature_in_fetched_weights_is_refused_as_in_uploads(bucket: Bucket, work: Work) -> None:
    tensor = {"dtype": "F32", "shape": [0], "data_offsets": [56, 56]}
    bucket.put(f"10/{MODEL}", with_header({**header(), "q_proj.lora_B.bias": tensor}, bytes(56)))
    with pytest.raises(CheckpointUnsupported, match=r"checkpoint 10: .* lora_bias") as unsupported:
        resolve(work(look_up(bucket.name, f"10/{MODEL}")), lambda _: None)
    assert as_job_error(unsupported.value).code == "unsupported-adapter"
    assert is_final(unsupported.value)


def test_a_hub_that_is_away_costs_an_attempt(
    hub: Hub, on_hub: list[RemoteFile], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda _: None))  # it would wait for 23 s
    hub.out_of_order = True
    with pytest.raises(SourceUnavailable, match=r"checkpoint 10: .* try again later") as away:
        resolve(work(on_hub[0], token=TOKEN), lambda _: None)
    assert not is_final(away.value)


def test_weights_that_are_not_what_the_hub_says_are_not_kept(
    hub: Hub, on_hub: list[RemoteFile], work: Work, blobs: BlobStore
) -> None:
    sha256, file = hashlib.sha256(model_bytes(10)).hexdigest(), on_hub[1]
    assert isinstance(file, HubFile)
    with pytest.raises(SourceUnavailable, match="arrived damaged"):
        resolve(work(replace(file, sha256=sha256), token=TOKEN), lambda _: None)
    assert blobs.find("default", sha256) is None


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """A checkpoint below a folder that may be read."""
    folder = tmp_path / "runs" / "checkpoint-10"
    folder.mkdir(parents=True)
    (folder / MODEL).write_bytes(model_bytes(10))
    (folder / "adapter_config.json").write_bytes(CONFIG)
    return folder


def test_a_file_that_has_changed_since_submit_is_not_taken(on_disk: Path, work: Work, tmp_path: Path) -> None:
    pinned = pin(on_disk, FileRoots((tmp_path / "runs",), tmp_path / "data")).model
    resolved(work(pinned))
    (on_disk / MODEL).write_bytes(model_bytes(11))
    with pytest.raises(CheckpointChanged, match=r"checkpoint 10: .* has changed since"):
        resolve(work(pinned), lambda _: None)
    (on_disk / MODEL).unlink()
    with pytest.raises(CheckpointGone, match="is gone now"):
        resolve(work(pinned), lambda _: None)


def test_a_worker_without_the_runs_folder_costs_an_attempt(on_disk: Path, work: Work, tmp_path: Path) -> None:
    """Another worker may have it mounted."""
    pinned = pin(on_disk, FileRoots((tmp_path,), tmp_path / "data")).model
    (tmp_path / "runs").rename(tmp_path / "mounted elsewhere")
    with pytest.raises(SourceUnavailable, match=r"checkpoint 10: .* NEXTRAPOLATE_FILE_ROOTS") as away:
        resolve(work(pinned), lambda _: None)
    assert not is_final(away.value)
    (tmp_path / "mounted elsewhere").rename(tmp_path / "runs")
    resolved(work(pinned))


def test_an_upload_that_the_disk_has_lost_is_the_servers_fault(
    blobs: BlobStore, work: Work, tmp_path: Path
) -> None:
    stored = blobs.put_bytes("default", model_bytes(10)).sha256
    lost = FileSource("blob", stored)
    blobs.path(lost, "default").unlink()
    with pytest.raises(
        CheckpointLost, match=r"checkpoint 10: .* upload it again, to the same series"
    ) as error:
        resolve(work(lost), lambda _: None)
    assert not is_final(error.value)
    blobs.put_bytes("default", model_bytes(10))
    resolved(work(lost))


def damage(path: Path) -> None:
    """Turn over one bit, towards the end."""
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def test_an_upload_that_the_disk_has_damaged_is_the_servers_fault(blobs: BlobStore, work: Work) -> None:
    sources = [FileSource("blob", blobs.put_bytes("default", model_bytes(step)).sha256) for step in STEPS]
    damaged = blobs.path(sources[1], "default")
    damage(damaged)
    with pytest.raises(
        CheckpointLost, match=rf"checkpoint 20: .* {damaged.name}: .* delete it .* upload it again"
    ) as error:
        resolve(work(*sources), lambda _: None)
    assert not is_final(error.value)
    damaged.unlink()
    blobs.put_bytes("default", model_bytes(20))
    resolved(work(*sources))


def test_a_configuration_that_the_disk_has_damaged_is_the_servers_fault_too(
    blobs: BlobStore, work: Work
) -> None:
    """One digit of lora_alpha is a bit away from another: the deltas would be others, without a word."""
    job = work(*(FileSource("blob", blobs.put_bytes("default", model_bytes(step)).sha256) for step in STEPS))
    config = blobs.path(FileSource("blob", hashlib.sha256(CONFIG).hexdigest()), "default")
    damage(config)
    with pytest.raises(
        CheckpointLost, match=rf"checkpoint 10: .* {config.name}: .* upload it again"
    ) as error:
        resolve(job, lambda _: None)
    assert not is_final(error.value)


def test_weights_that_were_fetched_and_damaged_are_fetched_again_once_they_are_deleted(
    bucket: Bucket, in_bucket: list[RemoteFile], work: Work, blobs: BlobStore
) -> None:
    resolved(work(*in_bucket))
    fetched = FileSource("blob", hashlib.sha256(model_bytes(20)).hexdigest())
    damaged = blobs.path(fetched, "default")
    damage(damaged)
    with pytest.raises(CheckpointLost, match=r"checkpoint 20: .* delete it there; then run the job again"):
        resolve(work(*in_bucket), lambda _: None)
    damaged.unlink()
    resolved(work(*in_bucket))


def test_a_link_that_was_put_in_the_way_is_not_followed(on_disk: Path, work: Work, tmp_path: Path) -> None:
    pinned = pin(on_disk, FileRoots((tmp_path / "runs",), tmp_path / "data")).model
    shutil.move(on_disk, tmp_path / "elsewhere")
    on_disk.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointChanged):
        resolve(work(pinned), lambda _: None)
