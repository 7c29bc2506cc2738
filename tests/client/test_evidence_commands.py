"""`nextrapolate backtest` and `inspect`, against a real server."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.adapters import write_run
from fixtures.reports import comparison, inspection
from fixtures.scripted_server import MakeClient
from fixtures.server import EmbeddedServer

from nextrapolate import CheckpointError, NExtClient, ParameterError, Progress
from nextrapolate.schemas import Comparison, Inspection
from nextrapolate.tables import show_comparison, show_inspection, sparkline

COMMAND = str(Path(sys.executable).with_name("nextrapolate"))
METHODS = ["none", "weight-extrapolation", "autoregression"]


@pytest.fixture(scope="module")
def run_of_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("evidence") / "grpo", range(10, 130, 10))


def nextrapolate(server: EmbeddedServer, *arguments: object, encoding: str = "utf-8") -> str:
    environment = os.environ | {
        "NEXTRAPOLATE_URL": server.url,
        "NEXTRAPOLATE_API_KEY": server.api_key,
        "COLUMNS": "80",
        "PYTHONIOENCODING": encoding,
    }
    done = subprocess.run(
        [COMMAND, *map(str, arguments)], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.integration
def test_backtest_prints_the_methods_best_first(embedded_server: EmbeddedServer, run_of_steps: Path) -> None:
    asked = ("backtest", run_of_steps, "--at", 80, "--horizon-steps", 20)
    printed = nextrapolate(embedded_server, *asked, "--methods", "none, weight-extrapolation")
    lines = printed.splitlines()
    best = "weight-extrapolation predicts best, asked at step 80 for step 100"
    assert lines[0].startswith(f"A method beats no jump. {best}")
    assert lines[2].split()[:4] == ["method", "relative", "error", "cosine"]
    assert [line.split()[0] for line in lines[3:5]] == ["weight-extrapolation", "none"]
    as_json = nextrapolate(embedded_server, *asked, "--methods", "none", "--methods", "expo", "--json")
    assert {scored.method.name for scored in Comparison.model_validate_json(as_json).methods} == {
        "none",
        "expo",
    }


@pytest.mark.integration
def test_inspect_shows_the_geometry(embedded_server: EmbeddedServer, run_of_steps: Path) -> None:
    printed = nextrapolate(embedded_server, "inspect", run_of_steps, "--until", 100)
    assert printed.startswith("Worth extrapolating. Extrapolation should pay on this run")
    for word in ("q_proj", "down_proj", "speed, norm per step", "held out, all about one mean", "█"):
        assert word in printed
    as_json = json.loads(nextrapolate(embedded_server, "inspect", run_of_steps, "--json"))
    assert as_json["steps"] == list(range(10, 130, 10))


@pytest.mark.integration
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_inspect_in_an_encoding_without_bars(
    embedded_server: EmbeddedServer, run_of_steps: Path, encoding: str
) -> None:
    printed = nextrapolate(embedded_server, "inspect", run_of_steps, encoding=encoding)
    (drift,) = [line for line in printed.splitlines() if line.startswith("norm since the base")]
    assert drift.isascii()
    assert drift.split()[4].endswith("#")


@pytest.mark.integration
def test_both_clients_ask_the_same(
    make_client: MakeClient, embedded_server: EmbeddedServer, run_of_steps: Path
) -> None:
    client = make_client(embedded_server.url, embedded_server.api_key)
    comparison = client.backtest(run_of_steps, at=80, horizon_steps=20, methods=METHODS)
    assert isinstance(comparison, Comparison)
    assert {scored.method.name for scored in comparison.methods} == set(METHODS)
    told: list[Progress] = []
    inspection = client.inspect(run_of_steps, on_progress=told.append)
    assert isinstance(inspection, Inspection)
    assert told[-1].fraction == 1.0


def test_what_is_wrong_here_is_said_before_anything_is_sent(run_of_steps: Path) -> None:
    with NExtClient("http://127.0.0.1:9") as client:
        with pytest.raises(ParameterError, match="no method 'nxt'"):
            client.backtest(run_of_steps, at=80, methods=["nxt"])
        with pytest.raises(CheckpointError, match=r"no checkpoint-85, .* there are 10, .*110, 120:"):
            client.backtest(run_of_steps, at=85, horizon_steps=30)
        with pytest.raises(CheckpointError, match="nowhere"):
            client.inspect("nowhere")


def test_a_comparison_notes_what_its_methods_warn_of(capsys: pytest.CaptureFixture[str]) -> None:
    report = comparison()
    silent, warned, _ = report.methods
    silent = silent.model_copy(update={"total": None, "reason": "it has 1 to learn from."})
    warned = warned.model_copy(update={"warnings": ["Little is explained."]})
    show_comparison(report.model_copy(update={"methods": [warned, silent], "warnings": ["Old files."]}))
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: relex: Little is explained.",
        "note: autoregression could not predict: it has 1 to learn from.",
        "note: Old files.",
    ]


def test_a_sparkline_reaches_from_nothing_to_the_largest() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.0, -1.0]) == "▁▁"


def test_a_sparkline_of_a_long_run_has_all_of_it() -> None:
    assert sparkline(range(1, 151))[-1] == "█"
    assert len(sparkline(range(1, 151))) == len(sparkline(range(24))) == 24
    assert sparkline([0.0] * 75 + [1.0] * 75) == "▁" * 12 + "█" * 12
    assert sparkline([]) == ""


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_inspect_shows_a_long_run_to_its_end_in_80_columns(
    on_a_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if on_a_terminal else "0")
    show_inspection(inspection(steps=range(10, 1510, 10)))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in plain
    bars = [found for line in plain.splitlines() for found in re.findall("[▁▂▃▄▅▆▇█]+", line)]
    assert [(len(found), found[-1]) for found in bars] == [(24, "█")] * len(bars)
    assert len(bars) == 7 + 3  # one for each kind of module; norm, speed and steadiness
