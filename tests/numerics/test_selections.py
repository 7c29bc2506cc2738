"""DARE and MAEC against dense matrices, masks and singular value decompositions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.adapters import MODULES, RANK, scale_run, write_run
from fixtures.combinations import by_module, dense_drift, fitted
from fixtures.dense import checkpoints, dense_deltas
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nextrapolate_numerics import (
    Dare,
    Extraction,
    LowRank,
    Maec,
    NonFiniteResultError,
    Trajectory,
    Update,
    extract,
)
from nextrapolate_numerics.methods import selection
from nextrapolate_numerics.methods.selection import Selection, largest

LARGE = {"model.layers.0.mlp.up_proj": (96, 64)}
FROZEN = list(MODULES)[-1]


def low_rank(m: int, n: int, rank: int, seed: int) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(m, rank, generator=generator), torch.randn(rank, n, generator=generator))


def nearest_error(matrix: Tensor, rank: int) -> float:
    """Squared norm that the nearest matrix of that rank lacks."""
    return float(torch.linalg.svdvals(matrix)[rank:].square().sum())


def opened(run: Path, method: Dare | Maec) -> Extraction:
    return extract(Trajectory.open(checkpoints(run)), method, 30)


def dense(update: Update, extraction: Extraction, name: str) -> Tensor:
    delta = update.delta(name, extraction.trajectory)
    return delta.B @ delta.A


@settings(deadline=None, max_examples=25)
@given(
    m=st.integers(1, 40),
    n=st.integers(1, 40),
    rank=st.integers(1, 6),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 99),
)
def test_the_largest_entries_are_those_of_a_sort(m: int, n: int, rank: int, share: float, seed: int) -> None:
    matrix = low_rank(m, n, rank, seed)
    chosen = torch.cat(list(largest(matrix, share).chunks()))
    full = matrix.B @ matrix.A
    count = max(1, round(share * m * n))
    threshold = full.abs().flatten().sort(descending=True).values[count - 1]
    assert torch.equal(chosen, torch.where(full.abs() >= threshold, full, 0.0))


def test_chunks_are_the_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix that does not fit into one chunk: no other is ever made, and the fit does not change."""
    matrix = low_rank(50, 30, 5, seed=1)
    whole = largest(matrix, 0.3).fitted(4)
    monkeypatch.setattr(selection, "_CHUNK_ENTRIES", 7 * 30)
    cut = largest(matrix, 0.3)
    assert [len(rows) for rows in cut.chunks()] == [7] * 7 + [1]
    fit = cut.fitted(4)
    torch.testing.assert_close(
        fit.factors.B @ fit.factors.A, whole.factors.B @ whole.factors.A, rtol=1e-4, atol=1e-5
    )


@settings(deadline=None, max_examples=25)
@given(
    m=st.integers(1, 60),
    n=st.integers(1, 60),
    rank=st.integers(1, 8),
    share=st.sampled_from([0.05, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_fit_is_all_but_the_nearest_and_knows_what_it_lacks(
    m: int, n: int, rank: int, share: float, seed: int
) -> None:
    wanted = largest(low_rank(m, n, rank, seed), share)
    full = torch.cat(list(wanted.chunks())).double()
    fit = wanted.fitted(rank)
    found = fit.factors.B @ fit.factors.A
    energy, lacks = float(full.square().sum()), float((full - found).square().sum())
    assert fit.energy == pytest.approx(energy, rel=1e-9)
    assert fit.discarded == pytest.approx(lacks, rel=1e-5, abs=1e-5 * energy)
    assert lacks <= nearest_error(full, rank) + 1e-3 * energy
    torch.testing.assert_close(fit.factors.A @ fit.factors.A.mT, torch.eye(len(fit.factors.A)).double())


def test_a_fit_of_nothing_is_nothing() -> None:
    nothing = Selection(low_rank(6, 5, 2, seed=0), lambda: torch.zeros_like).fitted(2)
    assert not (nothing.factors.B @ nothing.factors.A).any()
    assert (nothing.energy, nothing.discarded) == (0.0, 0.0)


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("jumped", [False, True])
def test_maec_extends_the_weights_that_moved_most(share: float, jumped: bool, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 40, 50])
    jumps = write_run(tmp_path / "jumps", [20], seed=5) if jumped else None
    update, _ = fitted(Maec(share=share, window_steps=30), run, 60, jumps)
    extraction = opened(run, Maec())
    for name, drift in by_module(run, dense_drift(run, jumps)).items():
        if name == FROZEN:
            assert name not in update.modules()
            continue
        line = (60 / 30 * (drift[50] - drift[20])).reshape(MODULES[name])
        count = round(share * line.size)
        threshold = np.sort(np.abs(line).ravel())[-count]
        wanted = torch.from_numpy(np.where(np.abs(line) >= threshold * (1 - 1e-5), line, 0.0))
        delta = update.delta(name, extraction.trajectory)
        assert delta.rank == RANK
        lacks = float((wanted - delta.B @ delta.A).square().sum())
        energy = float(wanted.square().sum())
        assert lacks / energy == pytest.approx(update.discarded(name), rel=1e-4)
        assert lacks <= nearest_error(wanted, RANK) + 1e-3 * energy


def test_all_weights_are_key_neurons_of_the_plain_line(tmp_path: Path) -> None:
    """Nothing is left out, and nothing discarded: two checkpoints of rank 4 differ by a matrix of rank 8."""
    run = write_run(tmp_path / "run", [10, 20, 30], rank=4)
    drift = dense_drift(run)
    update, _ = fitted(Maec(share=1.0, window_steps=30), run, 60)
    extraction = opened(run, Maec())
    for name, module in by_module(run, drift).items():
        if name in update.modules():
            line = torch.from_numpy(60 / 30 * module[30]).reshape(MODULES[name])
            torch.testing.assert_close(dense(update, extraction, name), line, rtol=1e-5, atol=1e-6)
    assert update.discarded() < 1e-10


@pytest.mark.parametrize("drop", [0.5, 0.9])
def test_dare_drops_entries_and_rescales_the_others(drop: float, tmp_path: Path) -> None:
    """Its mask is its own; that it is one, of the right share, shows in an adapter of full rank."""
    run = write_run(tmp_path / "run", [10, 20], modules=LARGE, rank=64)
    update, _ = fitted(Dare(drop=drop), run, 30)
    extraction = opened(run, Dare())
    (name,) = LARGE
    last = dense_deltas(checkpoints(run)[-1])[name]
    left = (last + dense(update, extraction, name)) * (1 - drop) / last
    kept = left.round()
    torch.testing.assert_close(left, kept, rtol=0, atol=1e-2)
    assert set(kept.flatten().tolist()) == {0.0, 1.0}
    assert float(kept.mean()) == pytest.approx(1 - drop, abs=0.02)
    assert update.discarded() < 1e-8


@pytest.mark.parametrize("drop", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("from_base", [True, False])
@pytest.mark.parametrize("jumped", [False, True])
def test_dare_fits_the_adapter_with_what_is_left_at_the_runs_rank(
    drop: float, from_base: bool, jumped: bool, tmp_path: Path
) -> None:
    """Measured from another adapter than the base model, the delta has twice the rank of the run."""
    run = write_run(tmp_path / "run", [10, 20, 40, 50], init_lora_weights=from_base)
    jumps = write_run(tmp_path / "jumps", [20], seed=5, init_lora_weights=from_base) if jumped else None
    method = Dare(drop=drop)
    update, _ = fitted(method, run, 30, jumps)
    extraction = opened(run, method)
    first, *_, last = (dense_deltas(files) for files in checkpoints(run))
    lacks = wanted = 0.0
    for name in sorted(extraction.moved):
        change = dropped(method, name, last[name] - (0 if from_base else first[name]))
        adapter = last[name] + dense(update, extraction, name)
        assert int(torch.linalg.matrix_rank(adapter, rtol=1e-5)) <= RANK
        lacking, energy = float((last[name] + change - adapter).square().sum()), float(change.square().sum())
        assert lacking <= nearest_error(last[name] + change, RANK) + 1e-3 * energy
        assert update.discarded(name) == pytest.approx(lacking / energy, rel=1e-4, abs=1e-4)
        lacks, wanted = lacks + lacking, wanted + energy
    assert update.discarded() == pytest.approx(lacks / wanted, rel=1e-4, abs=1e-4)
    assert f"discards {update.discarded():.1%} of the squared norm" in update.warnings[0]


def dropped(method: Dare, name: str, delta: Tensor) -> Tensor:
    """What the method changes: the mask is its own, the rest is the paper's formula."""
    ones = LowRank(torch.ones(len(delta), 1), torch.ones(1, delta.shape[1]))
    mask = torch.cat(list(method._changed(name, ones).chunks())) > 0
    return torch.where(mask, delta / (1 - method.drop), 0.0) - delta


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(exponent=st.floats(-9, -0.01), seed=st.integers(0, 99))
def test_of_what_dropping_changes_no_more_than_all_is_lost(
    exponent: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Even where float32 does not tell the change from none."""
    run = write_run(tmp_path_factory.mktemp("run") / "run", [10, 20], init_lora_weights=False)
    update, _ = fitted(Dare(drop=10**exponent, seed=seed), run, 30)
    assert 0 <= update.discarded() <= 1
    assert all(0 <= update.discarded(name) <= 1 for name in update.modules())


@pytest.mark.parametrize("from_base", [True, False])
def test_dropping_nothing_changes_nothing(from_base: bool, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 40, 50], init_lora_weights=from_base)
    update, unchanged = fitted(Dare(drop=0.0), run, 30)
    assert update.discarded() == 0
    assert not unchanged.any()


def test_a_seed_is_a_mask_and_each_module_has_its_own(run_folder: Path) -> None:
    _, first = fitted(Dare(seed=1), run_folder, 30)
    _, again = fitted(Dare(seed=1), run_folder, 30)
    _, other = fitted(Dare(seed=2), run_folder, 30)
    np.testing.assert_array_equal(first, again)
    assert np.linalg.norm(first - other) > 0.1 * np.linalg.norm(first)


@pytest.mark.parametrize("method", [Dare(), Maec()])
@pytest.mark.parametrize(("B", "A"), [(2.0**-66, 2.0**-66), (2.0**66, 2.0**62), (2.0**124, 1.0)])
def test_a_run_of_any_size_gets_the_update_of_that_size(
    method: Dare | Maec, B: float, A: float, run_folder: Path
) -> None:
    """Deltas of which float32 holds nothing, or not even the largest entry: its factors hold them."""
    update, expected = fitted(method, run_folder, 30)
    scaled, found = fitted(method, scale_run(run_folder, B, A), 30)
    apart = np.linalg.norm(found / B / A - expected)
    assert apart <= 1e-5 * np.linalg.norm(expected)
    assert scaled.discarded() == pytest.approx(update.discarded(), rel=1e-5)
    assert scaled.warnings == update.warnings


def test_a_fit_that_float32_cannot_hold_is_refused(run_folder: Path) -> None:
    with pytest.raises(NonFiniteResultError, match="overflows float32"):
        fitted(Maec(share=0.5), scale_run(run_folder, 2.0**127, 1.0), 10**4)
