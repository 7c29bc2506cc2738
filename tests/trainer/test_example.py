"""The examples, in a short form each, as people start them."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.server import EmbeddedServer
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples"
PYTHON = (sys.executable,)
ACCELERATE = (Path(sys.executable).with_name("accelerate"), "launch", "--cpu", "--num_processes=2")
"""Without MPI this starts one process: on CPUs several take `--multi_gpu`."""


def run(
    server: EmbeddedServer, folder: Path, name: str, *options: str, by: tuple[object, ...] = PYTHON
) -> str:
    """Run an example in `folder`, and return what it said."""
    finished = subprocess.run(
        [*map(str, by), str(EXAMPLES / name), *options],
        cwd=folder,
        env=os.environ
        | {
            "NEXTRAPOLATE_URL": server.url,
            "NEXTRAPOLATE_API_KEY": server.api_key,
            "HF_HUB_OFFLINE": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_model.safetensors").is_file() and (folder / "adapter_config.json").is_file()


def test_grpo_jumps(embedded_server: EmbeddedServer, tmp_path: Path) -> None:
    options = ("--steps=31", "--jump-at=20", "--jump-every=10", "--horizon-steps=10", "--out=run")
    said = run(embedded_server, tmp_path, "trl_grpo.py", *options, by=ACCELERATE)
    assert "jumped from step 20 to 30 by auto" in said
    assert "jumped from step 30 to 40 by auto" in said
    assert is_adapter(tmp_path / "run")


def test_rloo_jumps_in_cycles_or_says_what_holds_it_back(
    embedded_server: EmbeddedServer, tmp_path: Path
) -> None:
    options = ("--steps=5", "--train-steps=4", "--jump-steps=4", "--out=run")
    said = run(embedded_server, tmp_path, "trl_rl_extra_cycle.py", *options)
    held_back = "no jump after step 4, training goes on from its own weights: the guard scores"
    assert "jumped from step 4 to 8 by auto" in said or held_back in said
    assert is_adapter(tmp_path / "run")


def test_a_loop_of_one_s_own_is_watched(embedded_server: EmbeddedServer, tmp_path: Path) -> None:
    options = ("--save-every=2", "--jump-at=4", "--horizon-steps=4")
    said = run(embedded_server, tmp_path, "watch_any_trainer.py", "--steps=6", *options, "--out=run")
    assert "posted step 4" in said
    target = next(tmp_path.glob("run/extrapolated-*"))
    assert is_adapter(target)
    again = ("--steps=2", f"--adapter={target}", "--out=run-2")
    assert f'PeftModel.from_pretrained(base_model, "{target.relative_to(tmp_path)}"' in said
    run(embedded_server, tmp_path, "watch_any_trainer.py", *options, *again)


def test_a_loop_of_one_s_own_learns_from_what_it_sampled_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("watch_any_trainer")
    tokenizer = AutoTokenizer.from_pretrained(example.MODEL, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(example.MODEL)
    asked = tokenizer(["7+8=", "37+85="], return_tensors="pt", padding=True)
    sampled = model.generate(
        **asked, do_sample=False, max_new_tokens=5, return_dict_in_generate=True, output_logits=True
    )
    completions = sampled.sequences[:, asked["input_ids"].shape[1] :]
    scores = torch.stack(sampled.logits, dim=1).log_softmax(-1)
    expected = scores.gather(-1, completions[..., None]).squeeze(-1)
    learnt_from = example.log_probabilities(model, asked, sampled.sequences)
    torch.testing.assert_close(learnt_from, expected, atol=1e-4, rtol=0)
