"""A run of two processes under `accelerate launch`, with gloo: by DDP, and by FSDP2."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures.grpo import same
from fixtures.server import EmbeddedServer
from safetensors.torch import load_file
from torch import Tensor

from nextrapolate import NExtClient
from nextrapolate_trainer.state import RunState

pytestmark = pytest.mark.integration

PROGRAM = Path(__file__).parent / "programs" / "several_processes.py"
WAYS = {
    # The launcher's way to start several processes without MPI; the program then asks for the CPU.
    "MULTI_CPU": ["--multi_gpu"],
    "FSDP": [
        "--use_fsdp",
        "--fsdp_version=2",
        "--fsdp_auto_wrap_policy=TRANSFORMER_BASED_WRAP",
        "--fsdp_transformer_layer_cls_to_wrap=Qwen2DecoderLayer",
        "--fsdp_state_dict_type=FULL_STATE_DICT",
    ],
}
"""By Accelerate's name of what comes of it."""


def launch(
    out: Path, way: str, url: str, api_key: str, guard: str, timeout: float
) -> tuple[str, list[dict[str, Any]]]:
    """Run two processes to their end; returns what they said, and what each of them left."""
    launcher = [str(Path(sys.executable).parent / "accelerate"), "launch", *WAYS[way], "--num_processes=2"]
    options = ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    finished = subprocess.run(
        [*launcher, *options, str(PROGRAM), str(out), guard, str(timeout)],
        env=os.environ
        | {
            "NEXTRAPOLATE_URL": url,
            "NEXTRAPOLATE_API_KEY": api_key,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(PROGRAM.parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    left = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert [(summary["processes"], summary["kind"]) for summary in left] == [(2, way)] * 2
    return finished.stderr, left


def adapter(seen: dict[str, Tensor], moment: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{moment}: "): t for name, t in seen.items() if name.startswith(f"{moment}: ")}


@pytest.mark.parametrize(("way", "guard"), [("MULTI_CPU", "none"), ("FSDP", "accepts")])
def test_every_process_jumps_to_the_same_bits(
    way: str, guard: str, embedded_server: EmbeddedServer, tmp_path: Path
) -> None:
    server = embedded_server
    _, (first, second) = launch(tmp_path, way, server.url, server.api_key, guard, timeout=60)
    assert first["jumps"] == second["jumps"]
    [job] = first["jumps"]
    one, other = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in (0, 1))
    with NExtClient(server.url, server.api_key) as client:
        returned = load_file(client.download(job, tmp_path / "result") / "adapter_model.safetensors")
        assert same(adapter(one, "begun after 4"), returned)
        assert same(adapter(one, "computed"), returned), "what the forward passes gather is the new adapter"
        assert same(adapter(one, "ended 5"), returned), (
            "a step of length 0 leaves it, and brings nothing back"
        )
        assert same(one, other), "all of it: before the jump, after it, and after each step that follows"
        assert not same(adapter(one, "ended 4"), returned)
        assert not same(adapter(one, "ended 6"), returned)
        state = RunState.read(tmp_path / "run" / "checkpoint-5")
        assert state.series is not None
        assert [made.job for made in client.get_series(state.series).jumps] == [job]
    saved = load_file(tmp_path / "run" / "checkpoint-5" / "adapter_model.safetensors")
    assert same(saved, returned)


def test_without_a_server_all_processes_go_on(tmp_path: Path) -> None:
    said, left = launch(tmp_path, "MULTI_CPU", "http://127.0.0.1:9", "nx_none_none", "none", timeout=5)
    assert [summary["jumps"] for summary in left] == [[], []]
    assert said.count("no jump after step 4") == 1, "the process that failed says so, the other is silent"
    one, other = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in (0, 1))
    assert same(one, other)
    assert same(adapter(one, "ended 4"), adapter(one, "begun after 4"))
