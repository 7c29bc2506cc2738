"""Results arrive whole and verified, or not at all: the same for both clients."""

import hashlib
from pathlib import Path

import pytest
from fixtures.client_examples import a_job
from fixtures.scripted_server import Answer, Handler, MakeClient, ScriptedServer, answer, cut_off, hang_up

from nextrapolate import CheckpointError, DownloadError, JobFailedError, JobState
from nextrapolate.schemas import FileInfo

WEIGHTS = bytes(range(256)) * 4096
CONFIG = b"{}"
MODEL_PATH = "/jobs/j1/adapter/adapter_model.safetensors"


def info(content: bytes) -> FileInfo:
    return FileInfo(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def file(content: bytes) -> Answer:
    """The service's answer to a download, which continues an earlier one where that is asked for."""

    def send(handler: Handler) -> None:
        begin = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        fresh = handler.headers.get("If-Range", "") != f'"{info(content).sha256}"'
        answer(content if fresh else content[begin:], 200 if fresh else 206)(handler)

    return send


@pytest.fixture
def finished(scripted: ScriptedServer) -> ScriptedServer:
    artifacts = {"adapter_model.safetensors": info(WEIGHTS), "adapter_config.json": info(CONFIG)}
    scripted.on("GET", "/jobs/j1", answer(a_job(JobState.SUCCEEDED, artifacts=artifacts)))
    scripted.on("GET", MODEL_PATH, file(WEIGHTS))
    scripted.on("GET", "/jobs/j1/adapter/adapter_config.json", file(CONFIG))
    return scripted


def test_all_files_arrive(make_client: MakeClient, finished: ScriptedServer, tmp_path: Path) -> None:
    out = make_client(finished.url).download("j1", tmp_path / "deep" / "out")
    assert (out / "adapter_model.safetensors").read_bytes() == WEIGHTS
    assert (out / "adapter_config.json").read_bytes() == CONFIG
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_of_a_result_the_files_that_are_wanted_can_be_had_alone(
    make_client: MakeClient, finished: ScriptedServer, tmp_path: Path
) -> None:
    client = make_client(finished.url)
    finished.on("GET", "/jobs/j1/adapter/adapter_config.json", hang_up)
    out = client.download("j1", tmp_path / "out", files=["adapter_model.safetensors"])
    assert [path.name for path in out.iterdir()] == ["adapter_model.safetensors"]
    with pytest.raises(DownloadError, match=r"the result of job j1 has no file adapter\.bin"):
        client.download("j1", tmp_path / "none", files=["adapter.bin"])


def test_a_broken_download_goes_on(make_client: MakeClient, finished: ScriptedServer, tmp_path: Path) -> None:
    finished.on("GET", MODEL_PATH, cut_off(WEIGHTS[:500_000], len(WEIGHTS)), hang_up, file(WEIGHTS))
    out = make_client(finished.url).download("j1", tmp_path / "out")
    assert (out / "adapter_model.safetensors").read_bytes() == WEIGHTS
    ranges = [received.headers.get("range") for received in finished.received if received.path == MODEL_PATH]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert ranges[2] == ranges[1]


def test_a_broken_download_begins_again_where_ranges_are_ignored(
    make_client: MakeClient, finished: ScriptedServer, tmp_path: Path
) -> None:
    finished.on("GET", MODEL_PATH, cut_off(WEIGHTS[:500_000], len(WEIGHTS)), answer(WEIGHTS))
    out = make_client(finished.url).download("j1", tmp_path / "out")
    assert (out / "adapter_model.safetensors").read_bytes() == WEIGHTS


def test_a_damaged_file_is_refused(make_client: MakeClient, finished: ScriptedServer, tmp_path: Path) -> None:
    finished.on("GET", MODEL_PATH, answer(WEIGHTS[::-1]))
    with pytest.raises(DownloadError, match="download it again"):
        make_client(finished.url).download("j1", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_leads_elsewhere_is_refused(
    make_client: MakeClient, finished: ScriptedServer, tmp_path: Path
) -> None:
    artifacts = {"../adapter_model.safetensors": info(WEIGHTS)}
    finished.on("GET", "/jobs/j1", answer(a_job(JobState.SUCCEEDED, artifacts=artifacts)))
    with pytest.raises(DownloadError, match="not a plain file name"):
        make_client(finished.url).download("j1", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(make_client: MakeClient, finished: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("work")
    with pytest.raises(CheckpointError, match="not overwritten"):
        make_client(finished.url).download("j1", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_an_empty_folder_may_be_filled(
    make_client: MakeClient, finished: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    out = make_client(finished.url).download("j1", tmp_path / "out")
    assert len(list(out.iterdir())) == 2


def test_a_failed_job_has_no_result(
    make_client: MakeClient, scripted: ScriptedServer, tmp_path: Path
) -> None:
    scripted.on("GET", "/jobs/j1", answer(a_job(JobState.FAILED)))
    with pytest.raises(JobFailedError):
        make_client(scripted.url).download("j1", tmp_path / "out")
