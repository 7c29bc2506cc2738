"""A run of two processes under `accelerate launch`, with gloo: by DDP, by FSDP2, and by DeepSpeed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.grpo import same
from fixtures.launched import Run
from fixtures.server import EmbeddedServer
from safetensors.torch import load_file
from torch import Tensor

from nextrapolate import NExtClient
from nextrapolate_trainer.adapter import copied
from nextrapolate_trainer.state import RunState

pytestmark = pytest.mark.integration

PROGRAM = Path(__file__).parent / "programs" / "several_processes.py"


@dataclass(frozen=True)
class Way:
    """How two processes share a run."""

    options: tuple[str, ...]
    """Of the launcher."""
    kind: str
    """Accelerate's name for it."""
    computes_in: torch.dtype = torch.float32


# The launcher's way to start several processes without MPI; the program then asks for the CPU.
DDP = Way(("--multi_gpu", "--mixed_precision=no"), "MULTI_CPU")
FSDP2 = Way(
    (
        "--use_fsdp",
        "--fsdp_version=2",
        "--fsdp_auto_wrap_policy=TRANSFORMER_BASED_WRAP",
        "--fsdp_transformer_layer_cls_to_wrap=Qwen2DecoderLayer",
        "--fsdp_state_dict_type=FULL_STATE_DICT",
        "--mixed_precision=no",
    ),
    "FSDP",
)


def zero(stage: int) -> Way:
    options = (
        "--use_deepspeed",
        f"--zero_stage={stage}",
        "--zero3_init_flag=false",
        "--mixed_precision=bf16",
    )
    return Way((*options, "--zero3_save_16bit_model=true"), "DEEPSPEED", torch.bfloat16)


needs_deepspeed = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="DeepSpeed is not installed: see docs/trainers.md"
)
SHARDED = [
    pytest.param(FSDP2, id="FSDP2"),
    *(pytest.param(zero(stage), id=f"ZeRO-{stage}", marks=needs_deepspeed) for stage in (1, 2, 3)),
]


def launch(way: Way, *runs: Run) -> str:
    """Have two processes do these runs, one after the other; returns what they said."""
    launcher = [str(Path(sys.executable).parent / "accelerate"), "launch", *way.options, "--num_processes=2"]
    options = ["--num_machines=1", "--dynamo_backend=no", "--main_process_port=0"]
    finished = subprocess.run(
        [*launcher, *options, str(PROGRAM), *(json.dumps(asdict(run)) for run in runs)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return finished.stderr


def left(out: Path, way: Way) -> list[dict[str, Any]]:
    """What each of the two processes left of a run."""
    summaries = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert [(summary["processes"], summary["kind"]) for summary in summaries] == [(2, way.kind)] * 2
    return summaries


@dataclass(frozen=True)
class Finished:
    """The runs of one launch, to their end."""

    out: Path
    said: str
    without_server: Path
    """Where the third run of DDP's launch left what it left."""
    guard_fails: Path
    """The same of the fourth, whose guard fails in one of the processes."""
    refused: Path
    """And of the second, which is refused, and ends after a step that is none of those collected."""
    preempted: Path
    """And of the last, which is preempted."""


@pytest.fixture(scope="module")
def finished(
    embedded_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Way], Finished]:
    """The one launch of each way from which tests go on; what they change of it they copy first.

    DDP's has four more: most of what a short run takes is the birth of its processes.
    """

    @cache
    def run(way: Way) -> Finished:
        names = ("finished", "without-server", "guard-fails", "refused", "preempted")
        out, *others = (tmp_path_factory.mktemp(name) for name in names)
        without_server, guard_fails, refused, preempted = others
        guard = "none" if way is DDP else "accepts"
        runs = [Run(str(out), embedded_server.url, embedded_server.api_key, guard, 240)]
        if way is DDP:
            # Processes that it leaves out of step do not come through the next one.
            runs.append(replace(runs[0], out=str(refused), steps=5, dora=True))
            runs.append(Run(str(without_server), "http://127.0.0.1:9", "nx_none_none", "none", timeout=1))
            runs.append(replace(runs[0], out=str(guard_fails), guard="fails in one"))
            runs.append(replace(runs[0], out=str(preempted), preempted=True))
        return Finished(out, launch(way, *runs), *others)

    return run


def adapter(seen: dict[str, Tensor], moment: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{moment}: "): t for name, t in seen.items() if name.startswith(f"{moment}: ")}


@pytest.mark.parametrize("way", [pytest.param(DDP, id="DDP"), *SHARDED])
def test_every_process_jumps_to_the_same_bits(
    way: Way, finished: Callable[[Way], Finished], embedded_server: EmbeddedServer, tmp_path: Path
) -> None:
    server, run = embedded_server, finished(way)
    first, second = left(run.out, way)
    assert first["jumps"] == second["jumps"]
    assert first["moments"]["3"] > 0
    assert (first["moments"]["4"] == 0) == (way is not DDP), "of the others the optimizer is to be reset"
    assert len(first["jumps"]) == 2, run.said
    job, last = first["jumps"]
    one, other = (load_file(run.out / f"rank-{rank}.safetensors") for rank in (0, 1))
    with NExtClient(server.url, server.api_key) as client:
        returned, ends = (
            load_file(client.download(each, tmp_path / each) / "adapter_model.safetensors")
            for each in (job, last)
        )
        assert same(adapter(one, "at the end"), ends)
        assert not same(adapter(one, "ended 6"), ends)
        assert same(adapter(one, "begun after 4"), returned)
        rounded = {name: tensor.to(way.computes_in).float() for name, tensor in returned.items()}
        assert same(adapter(one, "computed"), rounded), "what the forward passes gather is the new adapter"
        assert same(adapter(one, "ended 5"), returned), (
            "a step of length 0 leaves it, and brings nothing back"
        )
        assert same(one, other), "all of it: before the jump, after it, and after each step that follows"
        assert not same(adapter(one, "ended 4"), returned)
        assert not same(adapter(one, "ended 6"), returned)
        state = RunState.read(run.out / "run" / "checkpoint-5")
        assert state.series is not None
        assert [made.job for made in client.get_series(state.series).jumps] == [job]
    saved = load_file(run.out / "run" / "checkpoint-5" / "adapter_model.safetensors")
    assert same(copied(saved), rounded)


@pytest.mark.parametrize("way", SHARDED)
def test_a_sharded_run_is_resumed_where_a_checkpoint_is_collected(
    way: Way, finished: Callable[[Way], Finished], embedded_server: EmbeddedServer, tmp_path: Path
) -> None:
    server = embedded_server
    shutil.copytree(finished(way).out, tmp_path, dirs_exist_ok=True)
    [checkpoint] = (tmp_path / "run").glob("checkpoint-4")
    said = launch(way, Run(str(tmp_path), server.url, server.api_key, "none", 240, str(checkpoint)))
    first, second = left(tmp_path, way)
    assert first["jumps"] == second["jumps"]
    assert len(first["jumps"]) == 2, said
    assert "a new series begins" not in said, "what was loaded is the adapter that was saved"
    one, other = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in (0, 1))
    assert same(one, other)
    assert not any(name.startswith("ended 4") for name in one), "it began after that step"


def test_without_a_server_all_processes_go_on(finished: Callable[[Way], Finished]) -> None:
    run = finished(DDP)
    assert [summary["jumps"] for summary in left(run.without_server, DDP)] == [[], []]
    told = "no jump after step 4, training goes on from its own weights: "
    assert run.said.count(told) == 3, "for each run without a jump once, by the process that failed"
    one, other = (load_file(run.without_server / f"rank-{rank}.safetensors") for rank in (0, 1))
    assert same(one, other)
    assert same(adapter(one, "ended 4"), adapter(one, "begun after 4"))
    assert same(adapter(one, "ended 6"), adapter(one, "at the end"))


def test_a_guard_that_fails_in_one_process_costs_the_jump_alone(finished: Callable[[Way], Finished]) -> None:
    run = finished(DDP)
    assert [summary["jumps"] for summary in left(run.guard_fails, DDP)] == [[], []]
    assert "the guard failed: OSError('no judge answers')" in run.said
    without = load_file(run.without_server / "rank-0.safetensors")
    assert all(same(load_file(run.guard_fails / f"rank-{rank}.safetensors"), without) for rank in (0, 1))


def test_a_refused_run_ends_in_all_processes(finished: Callable[[Way], Finished]) -> None:
    """The first one alone collects the last checkpoint, and cannot: no other waits for a jump from it."""
    run = finished(DDP)
    assert [summary["jumps"] for summary in left(run.refused, DDP)] == [[], []]
    assert "use_dora=true cannot be extrapolated" in run.said


def test_a_preempted_run_saves_and_stops_in_all_processes_at_the_same_step(
    finished: Callable[[Way], Finished],
) -> None:
    run = finished(DDP)
    assert [(summary["steps"], summary["jumps"]) for summary in left(run.preempted, DDP)] == [(5, [])] * 2
    assert run.said.count("the run has been asked to stop, and does not wait for the service") == 1
    saved = run.preempted / "run" / "checkpoint-4"
    assert RunState.read(saved).jumps == ()
    own = load_file(run.preempted / "rank-0.safetensors")
    assert same(copied(load_file(saved / "adapter_model.safetensors")), adapter(own, "ended 4"))
