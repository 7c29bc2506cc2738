"""The benchmark of the service, in its shortest form: every part prints a table with a row that adds up."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from benchmarks import latency, service, stages
from fixtures.server import EmbeddedServer

from nextrapolate.methods import make_method

pytestmark = pytest.mark.integration


def test_each_part_measures_something(
    embedded_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def shared(folder: Path) -> Iterator[tuple[str, str, None]]:
        yield embedded_server.url, embedded_server.api_key, None

    for part in (latency, stages):  # most of this would be imports of torch; `uploads` starts its own server
        monkeypatch.setattr(part, "running_server", shared)
    monkeypatch.setattr(latency, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(latency, "METHODS", ("none",))
    monkeypatch.setattr(stages, "METHODS", {"a line": make_method("weight-extrapolation")})
    monkeypatch.setattr(stages, "LATER", stages.LATER[:4])
    short = "--mib 1 --rounds 1 --clients 2 --jobs 20 --repeats 1"
    monkeypatch.setattr(sys, "argv", ["service.py", *short.split()])
    service.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    rules = [number for number, row in enumerate(rows) if "---" in row]
    tables = {rows[rule - 1][0]: rows[rule + 1] for rule in rules}
    assert set(tables) == {"MiB", "clients", "method", "a job by"}
    assert float(tables["MiB"][3]) > 0
    assert float(tables["clients"][2]) <= float(tables["clients"][3]) <= float(tables["clients"][4])
    alone, whole, over = map(float, tables["method"][2:5])
    assert over == pytest.approx(whole - alone, abs=0.011)
    assert tables["a job by"][0] == "a line"
    assert 0 < sum(map(float, tables["a job by"][1:8])) < 60
    assert "a line, after 2 jumps" in [row[0] for row in rows]


def test_an_unknown_part_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["service.py", "downloads"])
    with pytest.raises(SystemExit):
        service.main()
    assert "no part downloads" in capsys.readouterr().err
