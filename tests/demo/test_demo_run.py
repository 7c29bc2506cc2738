import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from demo.plans import PLANS
from demo.server import ServerFailedError, embedded_server
from demo.table import make_table
from rich.console import Console

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The demo with a tenth of its steps, and three of its ten cycles."""
    folder = tmp_path_factory.mktemp("demo")
    options = ("--shorten=10", "--held-out=100", f"--folder={folder}", f"--result={folder / 'result.json'}")
    subprocess.run([sys.executable, "-m", "demo.run", *options], cwd=ROOT, check=True)
    written: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return written


@pytest.mark.integration
def test_a_short_demo_makes_every_jump_and_measures_it(result: dict[str, Any]) -> None:
    events = {name: [(row["event"], row["step"]) for row in rows] for name, rows in result["runs"].items()}
    assert events == {
        "vanilla": [("start", 0), ("passing", 25), ("end", 40)],
        "jump": [("start", 0), ("jump", 15), ("end", 25)],
        "cycles": [("start", 0), *(("jump", step) for step in (4, 6, 8, 10)), ("end", 11)],
    }
    for rows in result["runs"].values():
        assert rows[0]["accuracy"] == result["runs"]["vanilla"][0]["accuracy"]
        assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert len(result["reports"]) == 5
    assert all(Path(path).is_file() for path in result["reports"])


@pytest.mark.integration
def test_the_table_fits_a_terminal(result: dict[str, Any]) -> None:
    text = io.StringIO()
    Console(width=80, file=text).print(make_table(PLANS, result["runs"]))
    assert max(map(len, text.getvalue().splitlines())) <= 80
    assert "GRPO + cycles" in text.getvalue()
    assert "…" not in text.getvalue()


def test_shortened_plans_keep_their_shape() -> None:
    cycles = next(plan for plan in PLANS if plan.name == "cycles").shortened(10)
    assert cycles.steps == 11, "with three cycles of ten"
    assert cycles.jumps == {"collect_every": 1, "jump_at": 4, "jump_every": 2, "horizon_steps": 10}
    assert [plan.shortened(1) for plan in PLANS] == list(PLANS)


@pytest.mark.integration
def test_a_server_that_would_refuse_every_jump_is_no_server_for_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXTRAPOLATE_DISK_RESERVE_BYTES", "1000TiB")
    refused = pytest.raises(ServerFailedError, match="nothing new: the server's disk")
    with refused, embedded_server(tmp_path, workers=1):
        pass
