"""NExt's default: leading triples from dense decompositions, and the regression solved as one large one."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.adapters import MODULES, RANK, write_adapter, write_run, write_turning_run
from fixtures.combinations import Vector, by_module, dense_drift, fitted, predicted, shapes
from fixtures.dense import checkpoints, dense_deltas, leading_triple
from safetensors.torch import load_file
from torch import Tensor

from nextrapolate_numerics import (
    Extraction,
    Next,
    TooFewCheckpointsError,
    Trajectory,
    WeightExtrapolation,
    extract,
)

STEPS = range(10, 130, 10)
QUERY, DOWN, FROZEN = MODULES


def extraction_of(run: Path) -> Extraction:
    return extract(Trajectory.open(checkpoints(run)), Next(), 30)


def leading_part(matrix: Vector, rank: int) -> Vector:
    u, sigma, vt = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray((u[:, :rank] * sigma[:rank]) @ vt[:rank])


def dense_parts(drift: dict[int, Vector], at: int, rank: int, shape: tuple[int, int]) -> list[Vector]:
    """Leading parts of the global speed, of that over 50 steps and of the local one, flattened."""
    steps = sorted(drift)
    before = [step for step in steps if step < at]
    nearest = min(before, key=lambda step: (abs(at - 50 - step), -step))
    return [
        leading_part(((drift[at] - drift[begin]) / (at - begin)).reshape(shape), rank).ravel()
        for begin in (0, nearest, before[-1])
    ]


def dense_next(
    modules: dict[str, dict[int, Vector]],
    shapes: dict[str, tuple[int, int]],
    horizon: int,
    *,
    rank: int = 8,
    decay: float = 0.5,
    used: Iterable[int] = (0, 1, 2),
) -> Vector:
    """Minimise the loss over (w, d_1, .., d_l) by one least-squares problem, penalties being rows of it."""
    names, chosen = sorted(modules), list(used)
    moving = [name for name in names if any(vector.any() for vector in modules[name].values())]
    steps = sorted(modules[names[0]])
    width, last = len(chosen), steps[-1]
    parts = {
        (name, at): np.array([dense_parts(modules[name], at, rank, shapes[name])[a] for a in chosen])
        for name in moving
        for at in steps[1:]
    }
    rows, targets, energy = [], [], 0.0
    for index, name in enumerate(moving):
        for i, at in enumerate(steps[1:-1], start=1):
            for end in steps[i + 1 :]:
                if end - at > horizon and end != steps[i + 1]:
                    continue
                weight = decay ** ((last - at) / 10) * ((end - at) / horizon) ** 0.5
                X = np.sqrt(weight) * (end - at) * parts[name, at].T
                block = np.zeros((len(X), width * (1 + len(moving))))
                block[:, :width] = block[:, width * (1 + index) : width * (2 + index)] = X
                rows.append(block)
                targets.append(np.sqrt(weight) * (modules[name][end] - modules[name][at]))
                energy += float((X**2).sum()) / width
    penalties = [0.1 * energy] * width + [0.3 * energy / len(moving)] * (width * len(moving))
    design = np.concatenate([*rows, np.diag(np.sqrt(penalties))])
    solution = np.linalg.lstsq(design, np.concatenate([*targets, np.zeros(len(penalties))]))[0]
    common, own = solution[:width], solution[width:].reshape(len(moving), width)
    weights = dict(zip(moving, common + own, strict=True))
    return np.concatenate(
        [
            horizon * weights[name] @ parts[name, last]
            if name in moving
            else np.zeros(np.prod(shapes[name], dtype=int))
            for name in names
        ]
    )


def oracle(run: Path, horizon: int, jumps: Path | None = None, **parameters: Any) -> Vector:
    modules = by_module(run, dense_drift(run, jumps))
    return dense_next(modules, shapes(Trajectory.open(checkpoints(run))), horizon, **parameters)


def agree(actual: Vector, expected: Vector) -> bool:
    return bool(np.linalg.norm(actual - expected) <= 1e-4 * np.linalg.norm(expected))


@pytest.mark.parametrize("horizon", [20, 50, 200])
@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (Next(), {}),
        (Next(rank=1), {"rank": 1}),
        (Next(rank=3, decay=0.9), {"rank": 3, "decay": 0.9}),
        (Next(use_global=False), {"used": (1, 2)}),
        (Next(use_local=False), {"used": (0, 1)}),
        (Next(use_global=False, use_local=False), {"used": (1,)}),
    ],
)
def test_it_is_the_regression_on_leading_parts(
    method: Next, parameters: dict[str, Any], horizon: int, run_folder: Path
) -> None:
    update, actual = fitted(method, run_folder, horizon)
    assert agree(actual, oracle(run_folder, horizon, **parameters))
    assert update.horizon_steps == horizon


def test_checkpoints_may_lie_far_apart(tmp_path: Path) -> None:
    """Weights fall with age by the step, and a million of them leave none: only their shares count."""
    steps = [10**6 * k for k in range(1, 8)]
    update, actual = fitted(Next(), write_run(tmp_path / "run", steps), 10**6)
    assert update.horizon_steps == 10**6
    assert np.linalg.norm(actual) > 0


def test_uneven_steps_and_jumps(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [5, 20, 30, 60, 70, 85])
    jumps = write_run(tmp_path / "jumps", [20, 60], seed=1)
    assert agree(fitted(Next(), run, 40, jumps)[1], oracle(run, 40, jumps))


def test_a_jump_right_after_the_checkpoint_that_the_drift_is_measured_from(tmp_path: Path) -> None:
    """Training went on from what was swapped in: as if that had been the first checkpoint."""
    run = write_run(tmp_path / "run", range(10, 80, 10), init_lora_weights=False)
    jumps = write_run(tmp_path / "jumps", [10], seed=1, init_lora_weights=False)
    _, jumped = fitted(Next(), run, 20, jumps)
    shutil.copytree(jumps / "checkpoint-10", run / "checkpoint-10", dirs_exist_ok=True)
    assert agree(jumped, fitted(Next(), run, 20)[1])


def test_it_learns_where_a_turning_run_goes(tmp_path: Path) -> None:
    files = checkpoints(write_turning_run(tmp_path / "run"))
    past = Trajectory.open(files[:-3])
    first, last = (dense_deltas(files[at])["turning"] for at in (-4, -1))
    true = last - first
    learnt, line = (
        predicted.B @ predicted.A
        for predicted in (
            method.fit(extract(past, method, 30), 30).delta("turning", past)
            for method in (Next(), WeightExtrapolation(30))
        )
    )
    assert (learnt - true).norm() < 0.25 * true.norm()
    assert (learnt - true).norm() < 0.7 * (line - true).norm()
    (sigma, u, v), (expected, true_u, true_v) = leading_triple(learnt), leading_triple(true)
    assert float((u @ true_u) * (v @ true_v)) > 0.97
    assert sigma == pytest.approx(expected, rel=0.1)


Change = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def rewritten(run: Path, folder: Path, change: Change) -> Path:
    """The run with each checkpoint's factors (B, A) of each module replaced."""
    for index, files in enumerate(checkpoints(run)):
        tensors = load_file(files.model)
        changed = {}
        for key in [key for key in tensors if "lora_B" in key]:
            other = key.replace("lora_B", "lora_A")
            changed[key], changed[other] = change(tensors[key], tensors[other], index)
        write_adapter(folder / f"checkpoint-{files.step}", changed)
    return folder


def test_the_gauge_of_the_factors_does_not_matter(run_folder: Path, tmp_path: Path) -> None:
    """B R^-1 and R A are the same matrix, whatever R, which may be another one at each checkpoint."""
    generator = torch.Generator().manual_seed(0)

    def other_gauge(B: Tensor, A: Tensor, index: int) -> tuple[Tensor, Tensor]:
        R = torch.eye(RANK) + 0.3 * torch.randn(RANK, RANK, generator=generator)
        return (-1) ** index * B @ torch.linalg.inv(R), (-1) ** index * R @ A

    turned = rewritten(run_folder, tmp_path / "turned", other_gauge)
    expected, actual = (fitted(Next(), run, 30)[1] for run in (run_folder, turned))
    assert np.linalg.norm(actual - expected) <= 1e-3 * np.linalg.norm(expected)


def test_rotated_weights_have_the_rotated_update(run_folder: Path, tmp_path: Path) -> None:
    """Nothing depends on the basis in which the weights are written, the signs of u and v included."""
    m, n = MODULES[DOWN]
    generator = torch.Generator().manual_seed(0)
    Q, P = (torch.linalg.qr(torch.randn(size, size, generator=generator)).Q for size in (m, n))

    def rotate(B: Tensor, A: Tensor, index: int) -> tuple[Tensor, Tensor]:
        return (Q @ B, A @ P) if (len(B), A.shape[1]) == (m, n) else (B, A)

    runs = [run_folder, rewritten(run_folder, tmp_path / "turned", rotate)]
    extractions = [extraction_of(run) for run in runs]
    before, after = (Next().fit(found, 30).delta(DOWN, found.trajectory) for found in extractions)
    expected = Q.double() @ (before.B @ before.A) @ P.double()
    assert float((after.B @ after.A - expected).norm() / expected.norm()) < 1e-4


def test_a_module_that_never_moved_gets_no_update(run_folder: Path) -> None:
    extraction = extraction_of(run_folder)
    assert FROZEN not in Next().fit(extraction, 30).modules()


def test_a_module_that_has_rested_so_far_gets_a_zero_update(tmp_path: Path) -> None:
    """Seen from a step before its first movement, where it has no more than the weights that all share."""
    run = write_run(tmp_path / "run", STEPS)

    def rest(B: Tensor, A: Tensor, index: int) -> tuple[Tensor, Tensor]:
        return (0 * B if len(B) == MODULES[DOWN][0] and index < 8 else B), A

    extraction = extraction_of(rewritten(run, tmp_path / "late", rest)).until(6)
    update = Next().fit(extraction, 30)
    assert update.delta(DOWN, extraction.trajectory).norm() == 0
    assert update.delta(QUERY, extraction.trajectory).norm() > 0


def test_a_backtest_does_not_see_that_a_module_moves_later(tmp_path: Path) -> None:
    """The others' updates are those of a series that ends before its first movement."""
    run = write_run(tmp_path / "run", STEPS)

    def rest(B: Tensor, A: Tensor, index: int) -> tuple[Tensor, Tensor]:
        return (0 * B if len(B) == MODULES[DOWN][0] and index < 8 else B), A

    late = rewritten(run, tmp_path / "late", rest)
    for files in checkpoints(late)[6:]:
        shutil.rmtree(files.model.parent)
    hidden = extraction_of(rewritten(run, tmp_path / "whole", rest)).until(6)
    actual = predicted(Next().fit(hidden, 30), hidden.trajectory)
    _, expected = fitted(Next(), late, 30)
    assert np.linalg.norm(actual - expected) <= 1e-9 * np.linalg.norm(expected)
    assert agree(expected, oracle(late, 30))


def test_nothing_has_moved_yet(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", STEPS)

    def rest(B: Tensor, A: Tensor, index: int) -> tuple[Tensor, Tensor]:
        return (0 * B if index < 8 else B), A

    extraction = extraction_of(rewritten(run, tmp_path / "late", rest)).until(6)
    assert not predicted(Next().fit(extraction, 30), extraction.trajectory).any()


def test_two_checkpoints_are_enough(tmp_path: Path) -> None:
    """The base model is where the first increment starts; the second one follows it."""
    run = write_run(tmp_path / "run", [10, 20])
    assert agree(fitted(Next(), run, 30)[1], oracle(run, 30))


def test_too_few_checkpoints(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0, 10])
    with pytest.raises(TooFewCheckpointsError, match=r"at least 3 checkpoints.* has 2"):
        fitted(Next(), run, 30)


def test_ranks_out_of_range_are_refused() -> None:
    for rank in (0, 9):
        with pytest.raises(ValueError, match=r"1 \.\. 8"):
            Next(rank=rank)


def test_progress_ascends_to_one(run_folder: Path) -> None:
    seen: list[float] = []
    Next().fit(extraction_of(run_folder), 30, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
