"""Factors that rest while others move: what lies between two of their points is rounding, and is nothing.

Whether rounding is seen depends on the rank: products of 4 or 8 rows are often rounded alike, those of 6, 14
or 16 are not.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures.adapters import MODULES, write_adapter, write_run
from fixtures.dense import adapter_files, checkpoints, dense_deltas, leading_triple
from safetensors.torch import load_file, save_file
from torch import Tensor

from nextrapolate_numerics import (
    AdapterFiles,
    Expo,
    Extraction,
    LowRank,
    Maec,
    Method,
    Next,
    NextPaper,
    NoBacktestError,
    Trajectory,
    Triple,
    WeightExtrapolation,
    backtest,
    extract,
)

NAME = "q_proj"
FROZEN = list(MODULES)[-1]
M, N = 300, 200
HORIZON = 20
RANKS = pytest.mark.parametrize("r", [5, 6, 14, 16])


def run_of(folder: Path, r: int, *, rests: str, from_base: bool, jumps: tuple[int, ...] = ()) -> Trajectory:
    """Seven checkpoints.

    Args:
        folder: empty.
        r: rank.
        rests: "A", all the way; "all", between the fourth checkpoint and the one before; "until 30", B and A.
        from_base: whether B begins at 0, before the first checkpoint; else the first one is of step 0.
        jumps: steps after which B, and A where it moves, are somewhere else.
    """
    generator = torch.Generator().manual_seed(0)
    B, A = torch.zeros(M, r), torch.randn(r, N, generator=generator) / N**0.5
    if not from_base:
        B += torch.randn(M, r, generator=generator)
    own, swapped = [], []
    for index in range(7):
        step = 10 * (index + from_base)
        still = (rests == "all" and index == 3) or (rests == "until 30" and step <= 30)
        if not (still or (index == 0 and not from_base)):
            B, A = moved(B, A, rests, 1e-3, generator)
        own.append(written(folder / f"checkpoint-{step}", B, A, step, from_base))
        if step in jumps:
            B, A = moved(B, A, rests, 1e-2, generator)
            swapped.append(written(folder / f"jump-{step}", B, A, step, from_base))
    return Trajectory.open(own, swapped)


def moved(B: Tensor, A: Tensor, rests: str, by: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    B = B + by * torch.randn(B.shape, generator=generator)
    return B, A if rests == "A" else A + by * torch.randn(A.shape, generator=generator)


def written(folder: Path, B: Tensor, A: Tensor, step: int, from_base: bool) -> AdapterFiles:
    tensors = {f"base_model.model.{NAME}.lora_{side}.weight": factor for side, factor in (("B", B), ("A", A))}
    write_adapter(folder, tensors, rank=len(A), init_lora_weights=from_base)
    return adapter_files(folder, step)


def drift_of(trajectory: Trajectory) -> Tensor:
    """(1 + c, m, n) the drift at the origin and each step after it, dense."""
    points = torch.stack([dense_deltas(files)[NAME] for files in trajectory.points])
    drift = torch.einsum("cp,pmn->cmn", trajectory.drift.coefficients, points)
    return torch.where(drift.abs() < 1e-12, 0.0, drift)  # float64 rounds, too


def check(found: Triple, matrix: Tensor) -> None:
    if not matrix.any():
        assert not found.sigma
        return
    sigma, u, v = leading_triple(matrix)
    part = found.sigma * found.u.double().outer(found.v.double())
    torch.testing.assert_close(part, sigma * u.outer(v), rtol=0, atol=1e-5 * sigma)


CASES = pytest.mark.parametrize(
    ("rests", "from_base", "jumps"),
    [
        ("A", True, ()),
        ("A", False, ()),
        ("A", False, (20, 40)),
        ("all", True, ()),
        ("all", False, (10,)),
        ("until 30", False, ()),
        ("until 30", False, (0, 20, 40)),
    ],
)


@RANKS
@CASES
def test_triples_and_norms_are_the_dense_ones(
    r: int, rests: str, from_base: bool, jumps: tuple[int, ...], tmp_path: Path
) -> None:
    trajectory = run_of(tmp_path, r, rests=rests, from_base=from_base, jumps=jumps)
    drift = drift_of(trajectory)
    extraction = extract(trajectory, NextPaper(), HORIZON, geometry=True)
    triples = extraction.triples[NAME]
    for at in range(1, len(drift)):
        check(triples.globals[at - 1], drift[at])
        check(triples.locals[at - 1], drift[at] - drift[at - 1])
    for target, (begin, end) in zip(range(len(extraction.pairs)), extraction.pairs, strict=True):
        check(triples.targets[target], drift[end] - drift[begin])
    assert extraction.drift_norms[NAME] == pytest.approx(float(drift[-1].norm()), rel=1e-6)
    ratios = extraction.geometry[NAME].energy_ratios[-len(drift) + 1 :]
    for found, matrix in zip(ratios, drift[1:], strict=True):
        values = torch.linalg.svdvals(matrix)
        expected = float(values[0] / values.sum()) if matrix.any() else 0.0
        assert found == pytest.approx(expected, rel=1e-4)


@RANKS
@CASES
def test_parts_are_the_dense_ones(
    r: int, rests: str, from_base: bool, jumps: tuple[int, ...], tmp_path: Path
) -> None:
    trajectory = run_of(tmp_path, r, rests=rests, from_base=from_base, jumps=jumps)
    drift, steps = drift_of(trajectory), trajectory.drift.steps
    products, _ = extract(trajectory, Next(rank=2), HORIZON).parts[NAME].of_rank(2)
    for at in range(1, len(drift)):
        local = leading_part(drift[at] - drift[at - 1]) / (steps[at] - steps[at - 1])
        whole = leading_part(drift[at]) / (steps[at] - steps[0])
        expected = torch.stack([(whole * whole).sum(), (whole * local).sum(), (local * local).sum()])
        found = products[at - 1][[0, 0, 2], [0, 2, 2]]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.max()))


def leading_part(matrix: Tensor) -> Tensor:
    u, sigma, vt = torch.linalg.svd(matrix, full_matrices=False)
    part: Tensor = u[:, :2] * sigma[:2] @ vt[:2]
    return part


def resting(folder: Path, names: set[str], *, from_step: int) -> list[AdapterFiles]:
    """A run from a trained adapter to step 80; the modules stay, bit for bit, where they are at a step."""
    files = checkpoints(write_run(folder, range(10, 90, 10), init_lora_weights=False))
    at_rest = load_file(next(each.model for each in files if each.step == from_step))
    for later in (each for each in files if each.step > from_step):
        tensors = load_file(later.model)
        tensors |= {key: at_rest[key] for key in tensors if any(f".{name}.lora" in key for name in names)}
        save_file(tensors, later.model)
    return files


def rounded(extraction: Extraction, seed: int) -> Extraction:
    """The same with the last digits of its inner products another way."""
    generator = torch.Generator().manual_seed(seed)

    def noisy(gram: Tensor) -> Tensor:
        noise = torch.randn(gram.shape, generator=generator, dtype=torch.float64)
        return gram * (1 + 2e-16 * (noise + noise.T))

    return replace(extraction, grams={name: noisy(gram) for name, gram in extraction.grams.items()})


@pytest.mark.parametrize("method", [Expo(), WeightExtrapolation(), Next()])
def test_a_module_at_rest_has_no_score_however_its_products_are_rounded(
    method: Method, tmp_path: Path
) -> None:
    moving, *still = [name for name in MODULES if name != FROZEN]
    trajectory = Trajectory.open(resting(tmp_path / "some", set(still), from_step=50))
    extraction = extract(trajectory, method, 20, geometry=True)
    for seed in range(5):
        assert set(backtest(method, rounded(extraction, seed), 20).modules) == {moving}
    trajectory = Trajectory.open(resting(tmp_path / "all", set(MODULES), from_step=50))
    extraction = extract(trajectory, method, 20, geometry=True)
    for seed in range(5):
        with pytest.raises(NoBacktestError, match="no module changed from step 60 to step 80"):
            backtest(method, rounded(extraction, seed), 20)


def test_of_a_module_at_rest_no_entries_are_selected(tmp_path: Path) -> None:
    still = {name for name in MODULES if name != FROZEN} - {next(iter(MODULES))}
    trajectory = Trajectory.open(resting(tmp_path, still, from_step=20))
    update = Maec(share=0.5).fit(extract(trajectory, Maec(), 50), 50)
    for name in still:
        assert not update.delta(name, trajectory).norm()
        assert update.discarded(name) == 0
    assert update.delta(next(iter(MODULES)), trajectory).norm() > 0


@pytest.mark.parametrize("r", [2, 5, 16, 64])
def test_what_cancels_has_no_length(r: int) -> None:
    generator = torch.Generator().manual_seed(r)
    B, A = torch.randn(M, r, generator=generator), torch.randn(r, N, generator=generator)
    point = LowRank(B, A)
    assert (point + point.scaled(-1.0)).norm() == 0
    near = LowRank(B, A + 1e-6 * torch.randn(r, N, generator=generator))
    dense = (near.B.double() @ near.A.double() - B.double() @ A.double()).norm()
    assert (near + point.scaled(-1.0)).norm() == pytest.approx(float(dense), rel=0.01)
