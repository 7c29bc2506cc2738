"""Factors that rest while others move: what lies between two of their points is rounding, and is nothing.

Whether rounding is seen depends on the rank: products of 4 or 8 rows are often rounded alike, those of 6, 14
or 16 are not.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures.adapters import MODULES, RANK, write_adapter, write_run
from fixtures.dense import (
    adapter_files,
    assert_same_scores,
    checkpoints,
    dense_deltas,
    leading_triple,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from nextrapolate_numerics import (
    AdapterFiles,
    Autoregression,
    Backtest,
    Expo,
    Extraction,
    GateThresholds,
    Maec,
    Method,
    Next,
    NextPaper,
    NoBacktestError,
    Relex,
    Trajectory,
    Triple,
    WeightExtrapolation,
    backtest,
    compare,
    extend,
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
    products, with_coming = extract(trajectory, Next(rank=2), HORIZON).parts[NAME].of_rank(2)
    for at in range(1, len(drift)):
        local = leading_part(drift[at] - drift[at - 1]) / (steps[at] - steps[at - 1])
        whole = leading_part(drift[at]) / (steps[at] - steps[0])
        expected = torch.stack([(whole * whole).sum(), (whole * local).sum(), (local * local).sum()])
        found = products[at - 1][[0, 0, 2], [0, 2, 2]]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.max()))
        coming = [
            drift[end] - drift[at] for end in range(at + 1, len(drift)) if steps[end] - steps[at] <= HORIZON
        ]
        if not coming and at + 1 < len(drift):
            coming = [drift[at + 1] - drift[at]]
        for column, parts in ((0, whole), (2, local)):
            expected = torch.tensor([float((parts * matrix).sum()) for matrix in coming])
            found = with_coming[at - 1, column]
            torch.testing.assert_close(found[: len(coming)].float(), expected, rtol=1e-4, atol=1e-6)
            assert not found[len(coming) :].any()


def leading_part(matrix: Tensor) -> Tensor:
    u, sigma, vt = torch.linalg.svd(matrix, full_matrices=False)
    part: Tensor = u[:, :2] * sigma[:2] @ vt[:2]
    return part


def resting(
    folder: Path,
    names: set[str],
    *,
    from_step: int,
    modules: Mapping[str, tuple[int, int]] = MODULES,
    rank: int = RANK,
    from_base: bool = False,
    lora_alpha: int = 2 * RANK,
) -> list[AdapterFiles]:
    """A run to step 80, as a rule from a trained adapter; some modules stay, bit for bit, from a step on.

    Of `MODULES` the last one never moves.
    """
    moving = dict(modules) if modules is MODULES else {**modules, FROZEN: (5, 6)}
    steps = range(10, 90, 10)
    run = write_run(
        folder, steps, modules=moving, rank=rank, init_lora_weights=from_base, lora_alpha=lora_alpha
    )
    files = checkpoints(run)
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
        with pytest.raises(NoBacktestError, match="no module changed from step 60 to step 80") as none:
            backtest(method, rounded(extraction, seed), 20)
        assert none.value.measurable_steps is None


def test_of_a_module_at_rest_no_entries_are_selected(tmp_path: Path) -> None:
    still = {name for name in MODULES if name != FROZEN} - {next(iter(MODULES))}
    trajectory = Trajectory.open(resting(tmp_path, still, from_step=20))
    update = Maec(share=0.5).fit(extract(trajectory, Maec(), 50), 50)
    for name in still:
        assert not update.delta(name, trajectory).norm()
        assert update.discarded(name) == 0
    assert update.delta(next(iter(MODULES)), trajectory).norm() > 0


@pytest.mark.parametrize("method", [Next(), NextPaper(epochs=2), Expo()])
def test_a_wide_adapter_at_rest_has_no_score_where_only_triples_were_asked_for(
    method: Method, tmp_path: Path
) -> None:
    """Of two points of rank 16 the difference is a matrix of 24 rows, as wide as the sum of both."""
    modules = {"q_proj": (24, 300), "k_proj": (24, 300)}
    trajectory = Trajectory.open(resting(tmp_path, {"k_proj"}, from_step=50, modules=modules, rank=16))
    found = backtest(method, extract(trajectory, method, 20), 20)
    (compared,) = compare(trajectory, [method], at_step=60, horizon_steps=20)
    assert isinstance(compared, Backtest)
    assert set(found.modules) == set(compared.modules) == {"q_proj"}


RELEX = [Relex(), Relex(degree=2), Relex(window_steps=20), Relex(mode="line")]


def beginning(folder: Path, rank: int, *, from_base: bool, lora_alpha: int = 2 * RANK) -> list[AdapterFiles]:
    """A run of two modules, one of which stays at its first checkpoint until the last two."""
    modules = {"q_proj": (90, 70), "k_proj": (90, 70)}
    files = resting(
        folder, set(), from_step=10, modules=modules, rank=rank, from_base=from_base, lora_alpha=lora_alpha
    )
    first = {key: tensor for key, tensor in load_file(files[0].model).items() if "k_proj" in key}
    for each in files[1:6]:
        save_file(load_file(each.model) | first, each.model)
    return files


@pytest.mark.parametrize(
    ("method", "from_base"), [(Autoregression(), False), *((relex, True) for relex in RELEX)]
)
@pytest.mark.parametrize("rank", [5, 6, 8, 16])
def test_a_module_that_begins_to_move_is_not_gated_for_what_nobody_foretold(
    method: Method, from_base: bool, rank: int, tmp_path: Path
) -> None:
    files = beginning(tmp_path, rank, from_base=from_base)
    extraction = extract(Trajectory.open(files), method, 20, geometry=True)
    for seed in range(5):
        scores = backtest(method, rounded(extraction, seed), 20)
        assert (scores.modules["k_proj"].cosine, scores.modules["k_proj"].size_ratio) == (0, 0)
        assert "k_proj" not in GateThresholds().gated(extraction, scores)


@pytest.mark.parametrize("method", RELEX)
def test_a_module_that_only_rounding_would_move_is_not_disturbed(method: Method, tmp_path: Path) -> None:
    """One that rested from its first checkpoint on, where the base model was another."""
    modules = {"q_proj": (90, 70), "k_proj": (90, 70)}
    files = resting(tmp_path, {"k_proj"}, from_step=10, modules=modules, rank=6, from_base=True)
    extraction = extract(Trajectory.open(files), method, 20, geometry=True)
    for seed in range(5):
        scores = backtest(method, rounded(extraction, seed), 20)
        assert not scores.disturbed
        assert "k_proj" not in GateThresholds().gated(extraction, scores)


@pytest.mark.parametrize("method", [Autoregression(), *RELEX])
@pytest.mark.parametrize("from_base", [True, False])
@settings(deadline=None, max_examples=12)
@given(alpha=st.integers(1, 99), seed=st.integers(0, 99))
def test_no_module_is_gated_for_its_scaling_or_its_gauge(
    tmp_path_factory: pytest.TempPathFactory, method: Method, from_base: bool, alpha: int, seed: int
) -> None:
    """The same deltas from other factors, times a number: what is told of them is told of these."""
    told = []
    for turn, lora_alpha in ((None, 8), (seed, alpha)):
        folder = tmp_path_factory.mktemp("run")
        files = beginning(folder, 6, lora_alpha=lora_alpha, from_base=from_base)
        if turn is not None:
            turned(files, 6, turn)
        extraction = extract(Trajectory.open(files), method, 20, geometry=True)
        scores = backtest(method, extraction, 20)
        told.append((scores.modules, GateThresholds().gated(extraction, scores)))
    (some, gated), (others, also_gated) = told
    assert_same_scores(some, others)
    assert gated.keys() == also_gated.keys()


def turned(files: list[AdapterFiles], rank: int, seed: int) -> None:
    """The adapters' factors in another basis, B Q and Q^T A: as float64, or they are not the same."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64)).Q
    for each in files:
        tensors = {key: tensor.double() for key, tensor in load_file(each.model).items()}
        turns = {key: x @ Q if "lora_B" in key else Q.T @ x for key, x in tensors.items()}
        save_file(turns, each.model)


def test_an_update_of_a_module_at_rest_has_no_length(tmp_path: Path) -> None:
    moving, *still = [name for name in MODULES if name != FROZEN]
    trajectory = Trajectory.open(resting(tmp_path / "run", set(still), from_step=30))
    method = WeightExtrapolation(window_steps=20)
    extraction = rounded(extract(trajectory, method, 20), seed=0)
    (tmp_path / "out").mkdir()
    gate = GateThresholds(min_backtest_cosine=-1)
    update = method.fit(extraction, 20)
    made = extend(extraction, update, alpha=1.0, gate=gate, backtest=None, folder=tmp_path / "out")
    lengths = {module.name: module.update_norm for module in made.modules}
    assert lengths.pop(moving) > 0
    assert not any(lengths.values())
