"""An extrapolation from a folder to an adapter: what is sent, in which order, and what is not."""

import json
from pathlib import Path

import pytest
from fixtures.client_examples import a_report, write_checkpoints
from fixtures.scripted_job import ADAPTER, script_job
from fixtures.scripted_server import MakeClient, ScriptedServer, answer, problem

from nextrapolate import (
    AutoMethod,
    CheckpointError,
    Gate,
    InvalidRequestError,
    JobFailedError,
    JobState,
    Output,
    ParameterError,
    Progress,
)
from nextrapolate.progress import UPLOAD_SHARE


def sent(server: ScriptedServer, method: str) -> list[str]:
    return [received.path for received in server.received if received.method == method]


def submitted(server: ScriptedServer) -> dict[str, object]:
    body = next(received.body for received in server.received if received.path == "/jobs")
    loaded: dict[str, object] = json.loads(body)
    return loaded


def test_a_folder_becomes_an_adapter(
    make_client: MakeClient, service: ScriptedServer, tmp_path: Path
) -> None:
    run = write_checkpoints(tmp_path / "grpo", 10, 20, 30, 40)
    told: list[Progress] = []
    result = make_client(service.url).extrapolate(
        run, until=30, alpha=2.0, labels={"run": "grpo"}, on_progress=told.append
    )
    assert result.path == run / "extrapolated-80"
    assert {path.name: path.read_bytes() for path in result.path.iterdir()} == ADAPTER
    assert result.job.state is JobState.SUCCEEDED
    assert result.report == a_report()

    series = json.loads(service.received[0].body)
    assert (series["name"], series["base_model"], series["labels"]) == ("grpo", "tiny", {"run": "grpo"})
    assert sent(service, "PUT") == [
        f"/series/s1/checkpoints/{step}/{name}"
        for step in (10, 20, 30)
        for name in ("adapter_model.safetensors", "adapter_config.json")
    ]
    body = submitted(service)
    assert body["series"] == "s1"
    assert body["labels"] == {"run": "grpo"}
    assert body["method"] == {"name": "auto", "alpha": 2.0}

    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert list(dict.fromkeys(progress.stage for progress in told)) == ["upload", "queue", "fit", "download"]


def test_what_the_service_has_is_not_sent_again(
    make_client: MakeClient, service: ScriptedServer, tmp_path: Path
) -> None:
    """As after an upload that broke off: the first checkpoint is there, and the second's configuration."""
    service.on("POST", "/series/s1/checkpoints/10", answer({"missing": []}))
    service.on("POST", "/series/s1/checkpoints/20", answer({"missing": ["adapter_model.safetensors"]}))
    run = write_checkpoints(tmp_path / "grpo", 10, 20)
    told: list[Progress] = []
    make_client(service.url).extrapolate(run, on_progress=told.append)
    assert sent(service, "PUT") == ["/series/s1/checkpoints/20/adapter_model.safetensors"]
    uploaded = [progress.fraction for progress in told if progress.stage == "upload"]
    assert uploaded == sorted(uploaded)
    assert uploaded[-1] == UPLOAD_SHARE


def test_a_series_that_cannot_be_deleted_again_is_named(
    make_client: MakeClient, service: ScriptedServer, tmp_path: Path
) -> None:
    service.on("POST", "/series/s1/checkpoints/10", problem(422, detail="no LoRA"))
    service.on("DELETE", "/series/s1", problem(403))
    with pytest.raises(InvalidRequestError, match="no LoRA") as refusal:
        make_client(service.url).extrapolate(write_checkpoints(tmp_path / "grpo", 10, 20))
    (note,) = refusal.value.__notes__
    assert "`nextrapolate series delete s1`" in note


def test_uris_and_series_upload_nothing(
    make_client: MakeClient, service: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = make_client(service.url)
    uris = ["s3://b/checkpoint-10", "s3://b/checkpoint-20"]
    wanted = {"output": Output(rank="grow"), "gate": Gate(min_energy_ratio=0.2)}
    result = client.extrapolate(uris, until=20, method=AutoMethod(horizon_steps=70), **wanted)
    assert result.path == Path("extrapolated-90")
    body = submitted(service)
    assert body["checkpoints"] == [{"uri": uri} for uri in uris]
    assert body["until"] == 20
    assert body["output"] == {"rank": "grow"}
    assert body["gate"] == {"min_energy_ratio": 0.2}

    service.received.clear()
    client.extrapolate("01JGFJJZ00ABCDEFGHJKMNPQRS", out=tmp_path / "out")
    assert submitted(service)["series"] == "01JGFJJZ00ABCDEFGHJKMNPQRS"
    assert sent(service, "PUT") == []


def test_a_folder_that_is_taken_is_told_of_before_the_job_is_waited_for(
    make_client: MakeClient, service: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = make_client(service.url)
    with monkeypatch.context() as waited:
        waited.setattr("nextrapolate.wire.events.Listener.stream_options", lambda _: pytest.fail("it waits"))
        (tmp_path / "extrapolated-100").mkdir()
        (tmp_path / "extrapolated-100" / "adapter_model.safetensors").touch()
        with pytest.raises(CheckpointError, match="extrapolated-100 already exists") as taken:
            client.extrapolate("01JGFJJZ00ABCDEFGHJKMNPQRS", method=AutoMethod(horizon_steps=70))
    assert "`nextrapolate jobs download j1 --out DIR`" in taken.value.__notes__[0]


def test_nothing_is_sent_before_all_is_checked(
    make_client: MakeClient, service: ScriptedServer, tmp_path: Path
) -> None:
    client = make_client(service.url)
    run = write_checkpoints(tmp_path, 10, 20, 30)
    with pytest.raises(ParameterError):
        client.extrapolate(run, apha=1)
    with pytest.raises(ParameterError, match="horizon_steps: "):
        client.backtest(run, at=20, horizon_steps=0)
    (run / "extrapolated-80").mkdir()
    (run / "extrapolated-80" / "adapter_model.safetensors").touch()
    with pytest.raises(CheckpointError, match="extrapolated-80 already exists"):
        client.extrapolate(run)
    (run / "checkpoint-20" / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match="adapter_config"):
        client.extrapolate(run, out=tmp_path / "elsewhere")
    assert service.received == []


URIS = ["s3://bucket/checkpoint-10", "s3://bucket/checkpoint-20"]


@pytest.mark.parametrize(
    ("call", "arguments", "named"),
    [
        ("create_series", {"name": "x" * 1000}, "name: "),
        ("create_series", {"name": "run", "base_model": ["x"]}, "base_model: "),
        ("record_jump", {"series_id": "s1", "step": -1, "job_id": "j1"}, "step: "),
        ("announce", {"series_id": "s1", "step": 1, "digests": {"adapter_model.safetensors": "0"}}, "files"),
        ("put_file", {"series_id": "s1", "step": 1, "name": "adapter_model.bin", "data": b"x"}, "files"),
        ("extrapolate", {"source": URIS, "until": -1}, "until: "),
        ("extrapolate", {"source": [f"{uri}/{'x' * 4096}" for uri in URIS]}, "uri: "),
        ("inspect", {"source": URIS, "until": -1}, "until: "),
        ("backtest", {"source": URIS, "at": 10, "methods": []}, "methods: "),
    ],
)
def test_what_no_request_can_have_is_named(
    make_client: MakeClient, service: ScriptedServer, call: str, arguments: dict[str, object], named: str
) -> None:
    with pytest.raises(ParameterError, match=named):
        getattr(make_client(service.url), call)(**arguments)
    assert service.received == []


def test_a_failed_job_leaves_no_folder(
    make_client: MakeClient, service: ScriptedServer, tmp_path: Path
) -> None:
    script_job(service, JobState.FAILED)
    run = write_checkpoints(tmp_path, 10, 20, 30)
    with pytest.raises(JobFailedError):
        make_client(service.url).extrapolate(run)
    assert not (run / "extrapolated-80").exists()
    with pytest.raises(JobFailedError):
        make_client(service.url).extrapolate(run, out=tmp_path / "deep" / "er" / "out")
    assert not (tmp_path / "deep").exists()


def test_a_result_may_go_where_no_folder_is_yet(
    make_client: MakeClient, service: ScriptedServer, tmp_path: Path
) -> None:
    run = write_checkpoints(tmp_path, 10, 20, 30)
    result = make_client(service.url).extrapolate(run, out=tmp_path / "deep" / "er" / "out")
    assert result.path == tmp_path / "deep" / "er" / "out"
    assert sorted(path.name for path in result.path.iterdir()) == sorted(ADAPTER)
