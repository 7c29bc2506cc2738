"""A series that is not the way of one run: it begins with an adapter trained before, or two runs meet."""

import math
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from fixtures.adapters import MODULES, write_run
from fixtures.dense import checkpoints, dense_deltas, flat
from safetensors.torch import load_file, save_file

from nextrapolate_numerics import (
    AdapterFiles,
    GateThresholds,
    Trajectory,
    WeightExtrapolation,
    breaks,
    extend,
    extract,
    inspect,
    rests,
)
from nextrapolate_numerics.extraction import squared_norm, summed

SAID = "Post the starting adapter as the checkpoint at step 0"


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


def times_too_long(files: Sequence[AdapterFiles], index: int = 0) -> float:
    """An increment against what the others suggest, the longest of many left out; with dense vectors."""
    gaps = [end - begin for begin, end in pairwise([0, *(each.step for each in files)])]
    points = [flat(dense_deltas(each)) for each in files]
    lengths = [float((later - earlier).norm()) for earlier, later in pairwise([0 * points[0], *points])]
    suggested = []
    for other, (length, gap) in enumerate(zip(lengths, gaps, strict=True)):
        share = gaps[index] / gap
        suggested += [length * max(share, math.sqrt(share))] if other != index else []
    return lengths[index] / sorted(suggested)[-1 if len(gaps) < 5 else -2]


def breaks_of(files: Sequence[AdapterFiles]) -> list[tuple[int, int]]:
    """From which step to which, found and told by the numerics."""
    extraction = extract(Trajectory.open(files), WeightExtrapolation(), 10)
    found = breaks(extraction)
    for each in found:
        index = [file.step for file in files].index(each.end_step)
        assert each.times == pytest.approx(times_too_long(files, index), rel=1e-6)
        assert f"{each.times:.0f} times" in each.warning
        assert "increments suggest: " in each.warning
    return [(each.begin_step, each.end_step) for each in found]


def spliced(folder: Path, steps: Sequence[int], foreign: Sequence[int]) -> list[AdapterFiles]:
    """A run some of whose checkpoints are another run's."""
    own, other = (checkpoints(write_run(folder / str(seed), steps, seed=seed)) for seed in (0, 5))
    return [two[each.step in foreign] for each, *two in zip(own, own, other, strict=True)]


def warnings_of(files: Sequence[AdapterFiles], folder: Path, words: str = SAID) -> list[str]:
    """What an extrapolation says of it, an inspection saying the same."""
    trajectory, method = Trajectory.open(files), WeightExtrapolation()
    extraction = extract(trajectory, method, 10)
    update = method.fit(extraction, 10)
    folder.mkdir()
    extension = extend(extraction, update, alpha=1.0, gate=GateThresholds(), backtest=None, folder=folder)
    said = [warning for warning in extension.warnings if words in warning]
    assert said == [warning for warning in inspect(trajectory).warnings if words in warning]
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


@pytest.mark.parametrize(
    ("foreign", "found"),
    [
        ([], []),
        ([200], [(190, 200)]),
        ([180, 190, 200], [(170, 180)]),  # the increments after it are of one length with the others
        ([150], [(140, 150), (150, 160)]),
        (range(10, 110, 10), [(100, 110)]),
    ],
)
def test_where_two_runs_meet_is_found(
    foreign: Sequence[int], found: list[tuple[int, int]], tmp_path: Path
) -> None:
    assert breaks_of(spliced(tmp_path, range(10, 210, 10), foreign)) == found


def test_of_two_increments_the_longer_may_be_a_rate_that_rises(tmp_path: Path) -> None:
    assert not breaks_of(spliced(tmp_path, [100, 105], [105]))


@pytest.mark.parametrize("from_base", [True, False])
@pytest.mark.parametrize(
    ("copies", "found"),
    [
        ({}, []),
        ({100: 90}, [(90, 100)]),
        ({80: 70, 90: 70, 100: 70}, [(70, 100)]),
        ({20: 10, 60: 50}, [(10, 20), (50, 60)]),
        ({60: 40}, []),  # an older one, but not the one before
    ],
)
def test_a_checkpoint_that_came_twice_is_told(
    copies: Mapping[int, int], found: list[tuple[int, int]], from_base: bool, tmp_path: Path
) -> None:
    files = checkpoints(write_run(tmp_path / "run", range(10, 110, 10), init_lora_weights=from_base))
    models = {each.step: each.model for each in files}
    for step, copied in copies.items():
        shutil.copy(models[copied], models[step])
    told = warnings_of(files, tmp_path / "out", "No module changed")
    for (begin, end), warning in zip(found, told, strict=True):
        assert f"from step {begin} to {end}." in warning
    extraction = extract(Trajectory.open(files), WeightExtrapolation(), 10)
    assert [(rest.begin_step, rest.end_step) for rest in rests(extraction)] == found


def test_after_a_jump_a_run_that_stays_there_rests(tmp_path: Path) -> None:
    files = checkpoints(write_run(tmp_path / "run", range(10, 60, 10)))
    jumps = checkpoints(write_run(tmp_path / "jumps", [30], seed=5))
    shutil.copy(jumps[0].model, files[3].model)
    extraction = extract(Trajectory.open(files, jumps), WeightExtrapolation(), 10)
    assert [(rest.begin_step, rest.end_step) for rest in rests(extraction)] == [(30, 40)]
    assert not rests(extract(Trajectory.open(files), WeightExtrapolation(), 10))


def test_a_small_module_that_moves_beside_large_ones_is_no_rest(tmp_path: Path) -> None:
    """Of all modules together inner products do not tell its way from 0."""
    files = checkpoints(write_run(tmp_path / "run", range(10, 60, 10)))
    small = next(iter(MODULES))
    first = load_file(files[0].model)
    for each in files:
        own = {key: tensor for key, tensor in load_file(each.model).items() if small in key}
        save_file({key: tensor * 1e4 for key, tensor in first.items()} | own, each.model)
    extraction = extract(Trajectory.open(files), WeightExtrapolation(), 10)
    way = extraction.drift.coefficients.diff(dim=0)[-1]
    assert not squared_norm(way, summed(extraction.grams))
    assert not rests(extraction)
