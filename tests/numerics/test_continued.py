"""A series that begins with an adapter which was trained before."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from fixtures.adapters import write_run
from fixtures.dense import checkpoints, dense_deltas, flat
from safetensors.torch import load_file, save_file

from nextrapolate_numerics import (
    AdapterFiles,
    GateThresholds,
    Trajectory,
    WeightExtrapolation,
    extend,
    extract,
    inspect,
)

SAID = "Post the adapter that training began with as the checkpoint at step 0"


def write_continued(folder: Path) -> list[AdapterFiles]:
    """A run at steps 0, 10 .. 100 whose B were large before it began."""
    files = checkpoints(write_run(folder, range(0, 110, 10)))
    generator = torch.Generator().manual_seed(0)
    first = load_file(files[0].model)
    before = {key: torch.randn(value.shape, generator=generator) for key, value in first.items()}
    for each in files:
        tensors = load_file(each.model)
        save_file({k: v + before[k] if "lora_B" in k else v for k, v in tensors.items()}, each.model)
    return files


def times_too_long(files: Sequence[AdapterFiles]) -> float:
    """The first increment against what the others suggest, with dense vectors."""
    steps = [0, *(each.step for each in files)]
    points = [flat(dense_deltas(each)) for each in files]
    lengths = [float((later - earlier).norm()) for earlier, later in pairwise([0 * points[0], *points])]
    suggested = []
    for length, (begin, end) in list(zip(lengths, pairwise(steps), strict=True))[1:]:
        share = steps[1] / (end - begin)
        suggested.append(length * max(share, math.sqrt(share)))
    return lengths[0] / max(suggested)


def warnings_of(files: Sequence[AdapterFiles], folder: Path) -> list[str]:
    """What an extrapolation says of it, an inspection saying the same."""
    trajectory, method = Trajectory.open(files), WeightExtrapolation()
    extraction = extract(trajectory, method, 10)
    update = method.fit(extraction, 10)
    folder.mkdir()
    extension = extend(extraction, update, alpha=1.0, gate=GateThresholds(), backtest=None, folder=folder)
    said = [warning for warning in extension.warnings if SAID in warning]
    assert said == [warning for warning in inspect(trajectory).warnings if SAID in warning]
    return said


def test_a_run_that_continues_an_adapter_is_told_to_post_it(tmp_path: Path) -> None:
    _, *continued = write_continued(tmp_path / "run")
    (said,) = warnings_of(continued, tmp_path / "out")
    assert f"at step 10, is {times_too_long(continued):.0f} times further from the base model" in said


def test_the_adapter_that_training_began_with_is_what_is_asked_for(tmp_path: Path) -> None:
    assert not warnings_of(write_continued(tmp_path / "run"), tmp_path / "out")


@pytest.mark.parametrize(
    "steps",
    [
        range(10, 110, 10),
        [1, 51, 101],  # one step, and then many
        [100, 110, 120],  # many, and then few: as fast as all others
    ],
)
def test_a_run_from_the_base_model_is_none(steps: Sequence[int], tmp_path: Path) -> None:
    assert not warnings_of(checkpoints(write_run(tmp_path / "run", steps)), tmp_path / "out")


def test_noise_is_fast_over_few_steps(tmp_path: Path) -> None:
    """A random walk leads sqrt(50) times as fast over one step as over 50 of them."""
    files = checkpoints(write_run(tmp_path / "run", [1, 51, 101, 151]))
    generator = torch.Generator().manual_seed(0)
    walk: dict[str, torch.Tensor] = {}
    first = load_file(files[0].model)
    for steps, each in zip((1, 50, 50, 50), files, strict=True):
        for key, value in first.items():
            noise = torch.randn(value.shape, generator=generator) * math.sqrt(steps)
            walk[key] = walk.get(key, torch.zeros_like(value)) + noise if "lora_B" in key else value
        save_file(walk, each.model)
    assert not warnings_of(files, tmp_path / "out")
