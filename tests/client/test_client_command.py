"""The `nextrapolate` command: what it prints where, and with which exit code it ends."""

import errno
import json
import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest
from fixtures.client_examples import a_report, write_checkpoints
from fixtures.command import Ended, Run
from fixtures.scripted_server import ScriptedServer, answer, problem
from pydantic import BaseModel

from nextrapolate import AlphaRlMethod, DareMethod, WeightExtrapolationMethod, console
from nextrapolate.progress import Progress
from nextrapolate.schemas import MethodInfo, NextMethod
from nextrapolate.wire.transfers import Download


def test_version_and_help(run: Run) -> None:
    assert run("--version") == Ended(0, f"nextrapolate {version('nextrapolate')}\n", "")
    assert "--install-completion" in run("--help").out
    helped = run("extrapolate", "--help")
    assert helped.code == 0
    assert "extrapolated-<step> in the run's own folder" in " ".join(helped.out.split())
    for option in ("--until", "--method", "--horizon-steps", "--alpha", "--set", "--rank", "--out", "--json"):
        assert option in helped.out


def test_extrapolate(run: Run, service: ScriptedServer, tmp_path: Path) -> None:
    folder = write_checkpoints(tmp_path / "grpo", 10, 20, 30)
    ended = run(
        "extrapolate",
        folder,
        "--method",
        "next",
        "--set",
        "decay=0.9",
        "--set",
        "use_local=no",
        "--alpha",
        2,
        "--url",
        service.url,
    )
    assert ended.code == 0
    assert f"adapter  {folder}/extrapolated-80\n" in ended.out
    assert "verdict  Not measured. Nothing speaks for or against this jump" in ended.out
    assert f'PeftModel.from_pretrained(base_model, "{folder}/extrapolated-80")\n' in ended.out
    assert "queue     job j1\n" in ended.err
    told = [line.split()[1] for line in ended.err.splitlines()]
    assert told == ["upload", "queue", "fit", "download", "download"]
    body = next(received.body for received in service.received if received.path == "/jobs")
    assert json.loads(body)["method"] == {"name": "next", "alpha": 2.0, "use_local": False, "decay": 0.9}


def test_what_a_report_warns_of_is_shown(run: Run, service: ScriptedServer, tmp_path: Path) -> None:
    warned = a_report().model_copy(update={"warnings": ["two of the checkpoints are the same"]})
    service.on("GET", "/jobs/j1/report", answer(warned))
    ended = run("extrapolate", write_checkpoints(tmp_path, 10, 20, 30), "--url", service.url)
    assert ended.out.endswith("\nnote: two of the checkpoints are the same\n")


def test_a_bar_on_a_terminal(
    run: Run, service: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    ended = run("extrapolate", write_checkpoints(tmp_path, 10, 20, 30), "--url", service.url)
    assert "━" in ended.err
    assert "100%" in ended.err
    assert "\x1b" not in ended.out


def test_leaving_says_how_to_find_the_job_again(capsys: pytest.CaptureFixture[str]) -> None:
    def leave() -> None:
        with console.progress_display(url=None) as show:
            show(Progress("fit", 0.5, "fitting the method", job="01JOB"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    said = capsys.readouterr().err
    assert "`nextrapolate jobs watch 01JOB` follows it" in said
    assert "`nextrapolate jobs download 01JOB --out DIR` fetches its result" in said


def test_a_full_disk_while_the_result_arrives_names_job_and_folder(
    run: Run, service: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(download: Download, file: BinaryIO, chunk: bytes) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Download, "write", full)
    folder = write_checkpoints(tmp_path / "grpo", 10, 20, 30)
    ended = run("extrapolate", folder, "--out", tmp_path / "out", "--url", service.url)
    assert ended.code == 1
    assert "No space left on device" in ended.err
    assert f"the result of job j1 was to be written to {tmp_path / 'out'}" in ended.err
    assert "`nextrapolate jobs download j1 --out DIR`" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["grpo"]


def test_extrapolate_as_json(run: Run, service: ScriptedServer, tmp_path: Path) -> None:
    folder = write_checkpoints(tmp_path, 10, 20, 30)
    ended = run("extrapolate", folder, "--json", "--out", tmp_path / "out", "--url", service.url)
    printed = json.loads(ended.out)
    assert printed["path"] == str(tmp_path / "out")
    assert printed["job"]["state"] == "succeeded"
    assert printed["report"]["verdict"] == "the evidence speaks for the jump"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (
            ["{run}", "--method", "nxt"],
            "no method 'nxt'; the methods are alpharl, auto, autoregression, .*next, .*weight-extr",
        ),
        (
            ["{run}", "--set", "apha=1"],
            "auto does not take apha; its parameters are horizon_steps, seed",
        ),
        (["{run}", "--set", "epochs"], "for '--set': write name=value, not 'epochs'"),
        (
            ["{run}", "--set", "alpha=1", "--alpha", "2"],
            "for '--alpha': --set gives alpha as well: give it only once",
        ),
        (["{run}", "--rank", "huge"], "for '--rank': 'huge' is not one of 'same', 'grow'"),
        (["{run}", "--set", "name=none"], "auto does not take name; its parameters are horizon_steps"),
        (["{run}", "--set", "out=here"], "auto does not take out; its parameters are horizon_steps"),
        (["{run}", "--set", "method=none"], "auto does not take method; its parameters are horizon_steps"),
        (["{run}", "--out", "{run}/checkpoint-10/adapter_config.json/out"], "not a writable folder"),
        (["{run}", "--out", "/proc/out"], "/proc/out cannot be created: /proc is not a writable folder"),
        (["{run}", "--api-key", "schlüssel"], "the one line from the server's api_key file"),
        (["{run}", "--method", "next", "--set", "epochs=many"], "next: epochs: .*valid integer"),
        (["{run}", "--alpha", "nan"], "auto: alpha: Input should be a number\n"),
        (
            ["{run}", "--method", "soup", "--set", "scores=1,2"],
            "soup: selection='greedy' and scores",
        ),
        (["{run}/checkpoint-10", "nowhere"], "there is no folder nowhere"),
        (["{run}", "{run}/.."], "is a run that contains checkpoints: give a single run"),
        (["{run}", "--horizon-steps", "0"], "auto: horizon_steps: .*greater than or equal to 1"),
        (["{run}", "--until", "10"], "only checkpoint-10 up to step 10"),
        (["{run}", "--out", "{run}"], "not overwritten"),
        (["{run}", "--url", "localhost:8008"], "not a server's address"),
    ],
)
def test_bad_input(
    run: Run, service: ScriptedServer, tmp_path: Path, arguments: list[str], message: str
) -> None:
    folder = write_checkpoints(tmp_path, 10, 20, 30)
    url = [] if "--url" in arguments else ["--url", service.url]
    ended = run("extrapolate", *(argument.format(run=folder) for argument in arguments), *url)
    assert ended.code == 2
    assert re.search(message, ended.err)
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert service.received == []


def test_an_empty_name_is_not_taken_for_this_folder(
    run: Run, service: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_checkpoints(tmp_path, 10, 20, 30))
    ended = run("inspect", "", "--url", service.url)
    assert ended.code == 2
    assert "an empty name was given" in ended.err
    assert service.received == []


def test_a_wrong_key(run: Run, scripted: ScriptedServer) -> None:
    scripted.on("GET", "/methods", problem(401, detail="this key is not known"))
    ended = run("methods", "--url", scripted.url, "--api-key", "nx_1_wrong")
    assert ended.code == 2
    assert ended.err == (
        "nextrapolate: this key is not known "
        "(the key comes from api_key, --api-key or NEXTRAPOLATE_API_KEY)\n"
    )


def test_what_the_server_refuses(run: Run, service: ScriptedServer, tmp_path: Path) -> None:
    folder = write_checkpoints(tmp_path, 10, 20, 30)
    path = "/series/s1/checkpoints/20/adapter_model.safetensors"
    service.on("PUT", path, problem(422, detail="the file is cut off"))
    ended = run("extrapolate", folder, "--url", service.url)
    assert ended.code == 2
    assert "nextrapolate: the file is cut off\n" in ended.err
    assert "checkpoint-20/adapter_model.safetensors" in ended.err


def test_no_server(run: Run, scripted: ScriptedServer) -> None:
    scripted.stop()
    ended = run("methods", "--url", scripted.url)
    assert ended.code == 3
    assert f"no nextrapolate server answers at {scripted.url}" in ended.err
    assert "start one with `nextrapolate-server`" in ended.err


def test_an_address_with_nothing_there_asks_for_the_url(run: Run, scripted: ScriptedServer) -> None:
    advice = "GET /openapi.json lists what there is"
    detail = f"there is nothing at this address: {advice}"
    scripted.on("GET", "/methods", problem(404, code="route-not-found", detail=detail, advice=advice))
    said = "nextrapolate: there is nothing at this address: is --url, or NEXTRAPOLATE_URL, right?\n"
    assert run("methods", "--url", scripted.url) == Ended(2, "", said)


def test_a_server_in_trouble(run: Run, scripted: ScriptedServer) -> None:
    scripted.on("GET", "/methods", problem(507, detail="the disk is full"))
    assert run("methods", "--url", scripted.url)[::2] == (3, "nextrapolate: the disk is full\n")


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (
            WeightExtrapolationMethod,
            "  window_steps = 50 (1 <= window_steps <= 100000 or auto): the line starts at the checkpoint",
        ),
        (
            WeightExtrapolationMethod,
            "  from_step = None (0 <= from_step): step of the checkpoint",
        ),
        (DareMethod, "  drop = 0.5 (0 <= drop < 1): share of the entries to drop"),
        (AlphaRlMethod, "  rewards = None: reward of each checkpoint used"),
    ],
)
def test_values_that_a_parameter_may_have(
    model: type[BaseModel], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = model.model_json_schema()
    info = MethodInfo(name="m", title="M", paper=None, minimum_checkpoints=2, parameters=schema)
    console.show_methods([info])
    assert line in capsys.readouterr().out


def test_methods(run: Run, scripted: ScriptedServer) -> None:
    info = MethodInfo(
        name="next",
        title="NExt",
        paper="arXiv 2604.11446",
        minimum_checkpoints=3,
        parameters=NextMethod.model_json_schema(),
    )
    scripted.on("GET", "/methods", answer({"methods": [info.model_dump()]}))
    listed = run("methods", "--url", scripted.url)
    assert "next: NExt (arXiv 2604.11446)" in listed.out
    for parameter in (
        "horizon_steps = 50 (1 <= horizon_steps <= 100000): training steps to predict beyond",
        "alpha = 1.0 (0 <= alpha <= 100): factor on the predicted update",
        "preset = default (default or paper): default: regression",
        "use_global = True: use the global delta",
        "decay = 0.5 (0 < decay <= 1): preset=default: weight",
    ):
        assert f"  {parameter}" in listed.out
    assert json.loads(run("methods", "--json", "--url", scripted.url).out)[0]["name"] == "next"
