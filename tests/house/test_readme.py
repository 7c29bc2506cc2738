"""The snippets of the README, run as they stand against a real server; only names and sizes differ."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fixtures.adapters import write_run
from fixtures.grpo import tiny_parts
from fixtures.server import EmbeddedServer, Shell
from safetensors.torch import load_file, save_file
from trl.trainer.grpo_trainer import GRPOTrainer

from nextrapolate.schemas import Report

# TRL itself uses options that transformers is about to retire.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]


README = (Path(__file__).parents[2] / "README.md").read_text()
CURL, COMMAND = re.findall(r"^```bash\n(.*?)^```", README, flags=re.M | re.S)
PYTHON, TRL = re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)


def test_curl(server: EmbeddedServer, shell: Shell) -> None:
    snippet = CURL.replace("http://127.0.0.1:8008", server.url).replace("nextrapolate-data", "data")
    report = Report.model_validate_json(shell(["bash", "-euo", "pipefail", "-c", snippet]))
    assert report.target_step == 200
    adapter = server.data_dir.parent / "adapter"
    assert sorted(path.name for path in adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


@pytest.mark.parametrize(("last", "said"), [(150, "NaN"), (140, "there is no")])
def test_curl_says_what_is_refused_and_writes_nothing(
    server: EmbeddedServer, environment: Mapping[str, str], last: int, said: str
) -> None:
    folder = server.data_dir.parent / f"refused-{last}"
    model = write_run(folder / "grpo-run", [100, last]) / f"checkpoint-{last}" / "adapter_model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(model).items()}, model)
    snippet = CURL.replace("http://127.0.0.1:8008", server.url).replace("nextrapolate-data", "../data")
    done = subprocess.run(
        ["bash", "-c", snippet],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [path.name for path in folder.iterdir()] == ["grpo-run"]


def test_python(server: EmbeddedServer, shell: Shell) -> None:
    verdict, path = shell([sys.executable, "-c", PYTHON]).splitlines()
    assert verdict.startswith("The run's own past speaks")
    assert (server.data_dir.parent / path / "adapter_model.safetensors").is_file()


def test_command(server: EmbeddedServer, shell: Shell) -> None:
    shell(["bash", "-euo", "pipefail", "-c", COMMAND])
    assert (server.data_dir.parent / "step-200" / "adapter_model.safetensors").is_file()


def test_one_line_in_a_trl_run(
    server: EmbeddedServer,
    environment: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NEXTRAPOLATE_URL", server.url)
    monkeypatch.setenv("XDG_CONFIG_HOME", environment["XDG_CONFIG_HOME"])
    short = {
        "collect_every=10": "collect_every=1",
        "jump_at=40": "jump_at=4",
        "jump_every=20": "jump_every=2",
        "horizon_steps=100": "horizon_steps=2",
    }
    snippet = TRL
    for long, brief in short.items():
        assert long in snippet
        snippet = snippet.replace(long, brief)
    parts = tiny_parts(tmp_path, max_steps=6)
    names: dict[str, Any] = {
        "GRPOTrainer": GRPOTrainer,
        "model": parts["model"],
        "reward": parts["reward_funcs"],
        "args": parts["args"],
        "dataset": parts["train_dataset"],
        "tokenizer": parts["processing_class"],
        "lora": parts["peft_config"],
    }
    with caplog.at_level("INFO", logger="nextrapolate"):
        exec(snippet, names)
    names["client"].close()
    assert names["trainer"].state.global_step == 6
    assert "jumped from step 4 to 6 by auto" in caplog.text
