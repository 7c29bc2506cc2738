"""Gram matrices, triples and what moved, against dense float64."""

import shutil
from pathlib import Path

import pytest
import torch
from fixtures.adapters import MODULES, write_run
from fixtures.dense import checkpoints, dense_deltas, leading_triple
from fixtures.stored import stored_module
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from nextrapolate_numerics import (
    LowRank,
    ModuleFactors,
    NextPaper,
    NonFiniteWeightsError,
    NothingMovedError,
    TooFewCheckpointsError,
    Trajectory,
    WeightExtrapolation,
    extract,
)
from nextrapolate_numerics.extraction import Seen, sum_of_parts
from nextrapolate_numerics.extraction.before_jumps import done_before
from nextrapolate_numerics.extraction.decompositions import global_spectra, leading_triples
from nextrapolate_numerics.extraction.deltas import Delta
from nextrapolate_numerics.extraction.gram import FactorGrams, Pairs, entry_sums, gram
from nextrapolate_numerics.extraction.tiles import TiledGroup
from nextrapolate_numerics.extraction.triples import seen_deltas, triples_of
from nextrapolate_numerics.series import Drift

FROZEN = list(MODULES)[-1]


def random_factors(p: int, m: int, n: int, r: int, seed: int, closeness: float = 1.0) -> ModuleFactors:
    """Points around one another, `closeness` their distance over their norm."""
    generator = torch.Generator().manual_seed(seed)

    def around(*shape: int) -> Tensor:
        centre = torch.randn(*shape, generator=generator)
        return centre + closeness * torch.randn(p, *shape, generator=generator)

    return ModuleFactors(around(m, r).unbind(), around(r, n).unbind(), scaling=0.7)


def grouped(*modules: ModuleFactors) -> TiledGroup:
    return TiledGroup.of((str(index), stored_module(factors)) for index, factors in enumerate(modules))


def later(drift: Drift) -> range:
    """All steps after the origin."""
    return range(1, len(drift.steps))


def multiplied(*modules: ModuleFactors) -> FactorGrams:
    return grouped(*modules).multiplied(Pairs.of(len(modules[0].B)), sums=True)


def dense(factors: ModuleFactors) -> Tensor:
    return factors.scaling * torch.stack(factors.B).double() @ torch.stack(factors.A).double()


@settings(deadline=None, max_examples=40)
@given(
    p=st.integers(1, 6),
    m=st.integers(1, 9),
    n=st.integers(1, 9),
    r=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_gram_is_the_dense_one(p: int, m: int, n: int, r: int, seed: int) -> None:
    factors = random_factors(p, m, n, r, seed)
    flat = dense(factors).flatten(1)
    torch.testing.assert_close(gram(multiplied(factors))[0], flat @ flat.T, rtol=1e-10, atol=1e-10)


def test_a_module_wider_than_a_tile_has_the_dense_gram_sums_and_triples() -> None:
    """The last tile ends with what the one before left there, if nobody clears it."""
    drift = Drift.of([10, 20, 30], [], starts_at_base=True)
    group = grouped(factors := random_factors(drift.points, 20_011, 7, 8, seed=0))
    tile = group.modules[0].left.tile()
    assert tile.shape[-1] < 20_011
    assert 20_011 % tile.shape[-1]
    grams = multiplied(factors)
    deltas = dense(factors)
    torch.testing.assert_close(gram(grams)[0], deltas.flatten(1) @ deltas.flatten(1).T, rtol=1e-10, atol=0)
    torch.testing.assert_close(entry_sums(grams)[0], deltas.sum(dim=(1, 2)), rtol=1e-10, atol=1e-8)
    (found,) = triples_of(
        group, grams, drift, later(drift), [], Seen.GLOBALS, done_before(drift.spans(0, 3), grams)
    )
    assert len(found.locals.sigma) == len(found.targets.sigma) == 0, "nobody asked for them"
    leading = found.globals
    for sigma, u, v, delta in zip(leading.sigma, leading.u, leading.v, deltas, strict=True):
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        torch.testing.assert_close(sigma, values[0], rtol=1e-9, atol=0)
        part, expected = torch.outer(u, v).double(), torch.outer(left[:, 0], right[0])
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    m=st.integers(2, 12),
    n=st.integers(2, 12),
    r=st.integers(1, 4),
    closeness=st.sampled_from([1.0, 1e-3]),
    jumped=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_triples_are_the_dense_ones(
    m: int, n: int, r: int, closeness: float, jumped: bool, seed: int
) -> None:
    """Local deltas of 1e-3 of the global norm included: the bar is 1e-5 of the local delta itself."""
    drift = Drift.of([10, 20, 30, 40], [20] if jumped else [], starts_at_base=True)
    factors = random_factors(drift.points, m, n, r, seed, closeness)
    drifts = torch.einsum("ip,pmn->imn", drift.coefficients, dense(factors))
    pairs = drift.pairs(20)
    group, grams = grouped(factors), multiplied(factors)
    (found,) = triples_of(
        group, grams, drift, later(drift), pairs, Seen.ALL, done_before(drift.spans(0, 4), grams)
    )
    expected = {
        "globals": drifts[1:],
        "locals": drifts[1:] - drifts[:-1],
        "targets": torch.stack([drifts[j] - drifts[i] for i, j in pairs]),
    }
    for kind, deltas in expected.items():
        triples = getattr(found, kind)
        for index, delta in enumerate(deltas):
            sigma, _, _ = leading_triple(delta)
            assert float(triples.sigma[index]) == pytest.approx(sigma, rel=1e-5)
            captured = triples.u[index].double() @ delta @ triples.v[index].double()
            assert float(captured) == pytest.approx(sigma, rel=1e-5)


@settings(deadline=None, max_examples=20)
@given(jumps=st.sets(st.sampled_from([10, 20, 30, 40])), seed=st.integers(0, 2**31))
def test_modules_decomposed_together_have_their_own_dense_triples(jumps: set[int], seed: int) -> None:
    """One of them does not move until step 30: until then its delta is nothing, which others go on from."""
    drift = Drift.of([10, 20, 30, 40, 50], sorted(jumps), starts_at_base=True)
    late = random_factors(drift.points, 9, 7, 3, seed)
    still = [0, 1, *(5 + index for index, step in enumerate(sorted(jumps)) if step <= 20)]
    late_B = tuple(torch.zeros_like(B) if point in still else B for point, B in enumerate(late.B))
    modules = [
        random_factors(drift.points, 12, 5, 3, seed + 1),
        ModuleFactors(late_B, late.A, late.scaling),
        random_factors(drift.points, 4, 11, 3, seed + 2),
    ]
    group, grams = grouped(*modules), multiplied(*modules)
    dones = done_before(drift.spans(0, 5), grams)
    pairs = drift.pairs(20)
    spectra = list(global_spectra(grams, seen_deltas(drift, later(drift), [], Seen.GLOBALS), dones))
    triples = triples_of(group, grams, drift, later(drift), pairs, Seen.ALL, dones)
    for index, (factors, found) in enumerate(zip(modules, triples, strict=True)):
        drifts = torch.einsum("ip,pmn->imn", drift.coefficients, dense(factors))
        for kind, expected in (
            (found.globals, drifts[1:]),
            (found.locals, drifts[1:] - drifts[:-1]),
            (found.targets, torch.stack([drifts[j] - drifts[i] for i, j in pairs])),
        ):
            sigma = [leading_triple(delta)[0] for delta in expected]
            captured = [u.double() @ X @ v.double() for u, X, v in zip(kind.u, expected, kind.v, strict=True)]
            assert kind.sigma.tolist() == pytest.approx(sigma, rel=1e-5, abs=1e-9)
            assert [float(each) for each in captured] == pytest.approx(sigma, rel=1e-5, abs=1e-9)
            assert all(u[u.abs().argmax()] >= 0 for u in kind.u)
        nuclear = [float(torch.linalg.svdvals(delta).sum()) for delta in drifts[1:]]
        sums = torch.cat([values[index].sum(dim=-1) for values in spectra])
        assert sums.tolist() == pytest.approx(nuclear, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("size", [1e-3, 1e-4, 1e-5])
def test_a_small_drift_on_a_large_adapter_is_known_across_many_jumps(size: float, every: int) -> None:
    """The drift's smaller singular values are rounding beside the adapter, and their vectors are none."""
    steps = list(range(10, 210, 10))
    jumps = [step for step in steps[:-1] if step // 10 % every == 0]
    drift = Drift.of(steps, jumps, starts_at_base=False)
    factors = small_walk(96, 80, 8, size, len(steps), [steps.index(jump) for jump in jumps])
    group, grams = grouped(factors), multiplied(factors)
    last = len(steps) - 1
    dones = done_before(drift.spans(0, last), grams)
    (found,) = triples_of(group, grams, drift, later(drift), [], Seen.GLOBALS, dones)
    (((values,),),) = global_spectra(grams, [drift.spans(0, last)], dones)
    delta = torch.einsum("p,pmn->mn", drift.coefficients[-1], dense(factors))
    u, sigma, vt = torch.linalg.svd(delta, full_matrices=False)
    leading = found.globals[-1]
    part = leading.sigma * torch.outer(leading.u, leading.v).double()
    expected = sigma[0] * torch.outer(u[:, 0], vt[0])
    assert float((part - expected).norm() / sigma[0]) < 1e-5
    assert float(values.norm()) == pytest.approx(float(sigma.norm()), rel=1e-5)
    assert float(values.sum()) == pytest.approx(float(sigma.sum()), rel=5e-5)


def small_walk(m: int, n: int, r: int, size: float, checkpoints: int, jumps: list[int]) -> ModuleFactors:
    """Factors that walk by `size` of their norm from checkpoint to checkpoint, five times that in a jump."""
    generator = torch.Generator().manual_seed(0)

    def noise() -> tuple[Tensor, Tensor]:
        B, A = torch.randn(m, r, generator=generator), torch.randn(r, n, generator=generator)
        return B.double() / m**0.5, A.double() / n**0.5

    (B, A), (towards_B, towards_A) = noise(), noise()
    points, swapped = [], []
    for index in range(checkpoints):
        points.append((B.float(), A.float()))
        for length in (5 * size, size) if index in jumps else (size,):
            more_B, more_A = noise()
            B, A = B + length * (towards_B + more_B), A + length * (towards_A + more_A)
            if length > size:
                swapped.append((B.float(), A.float()))
    Bs, As = zip(*points, *swapped, strict=True)
    return ModuleFactors(Bs, As, scaling=0.7)


@settings(deadline=None, max_examples=50)
@given(
    closeness=st.sampled_from([1.0, 1e-3, 1e-6]),
    changed=st.sampled_from(["all", "B", "one column of B", "nothing"]),
    rank=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_sums_of_parts_are_what_dense_triples_make(
    closeness: float, changed: str, rank: int, seed: int
) -> None:
    factors = random_factors(3, 40, 30, 4, seed, closeness)
    (first, *B), (first_A, *A) = factors.B, factors.A
    if changed != "all":
        A = [first_A, first_A]
    if changed == "one column of B":
        B = [torch.cat([each[:, :1], first[:, 1:]], dim=1) for each in B]
    if changed == "nothing":
        B = [first, first]
    factors = ModuleFactors((first, *B), (first_A, *A), factors.scaling)
    points = dense(factors)
    increments: dict[Delta, Tensor] = {((None, 2),): points[2], ((0, 1),): points[1] - points[0]}
    increments |= {((None, 0), (1, 2)): points[0] + points[2] - points[1]}
    found = sum_of_parts(stored_module(factors), list(increments), rank, [0.5, -2.0, 1.0])
    expected = torch.zeros_like(points[0])
    for weight, increment in zip([0.5, -2.0, 1.0], increments.values(), strict=True):
        u, sigma, v = torch.linalg.svd(increment, full_matrices=False)
        expected += weight * (u[:, :rank] * sigma[:rank]) @ v[:rank]
    assert float((found.B @ found.A - expected).norm() / points[0].norm()) < 1e-7


def test_energy_ratio_norm_and_movement(run_folder: Path) -> None:
    extraction = extract(Trajectory.open(checkpoints(run_folder)), WeightExtrapolation(), 50)
    last = dense_deltas(checkpoints(run_folder)[-1])
    assert extraction.moved == MODULES.keys() - {FROZEN}
    assert extraction.energy_ratios[FROZEN] == 0
    assert not extraction.triples
    for name in extraction.moved:
        values = torch.linalg.svdvals(last[name])
        assert extraction.energy_ratios[name] == pytest.approx(float(values[0] / values.sum()), rel=1e-6)
        assert extraction.drift_norms[name] == pytest.approx(float(last[name].norm()), rel=1e-6)


def test_only_what_is_needed_is_extracted(run_folder: Path) -> None:
    extraction = extract(Trajectory.open(checkpoints(run_folder)), NextPaper(), 50)
    assert not extraction.grams
    assert extraction.triples.keys() == extraction.moved


def test_too_few_checkpoints_are_found_before_anything_is_read(run_folder: Path) -> None:
    files = checkpoints(run_folder)[:4]
    with pytest.raises(TooFewCheckpointsError, match="at least 6 checkpoints"):
        extract(Trajectory.open(files), NextPaper(), 50, on_progress=lambda _: pytest.fail("a file was read"))


def test_a_series_that_never_moved(tmp_path: Path) -> None:
    still = write_run(tmp_path / "run", [10, 20], modules={"only": (5, 6), "frozen": (5, 6)})
    files = checkpoints(still)
    for later in files[1:]:
        later.model.write_bytes(files[0].model.read_bytes())
    for config in (f.config for f in files):  # a random start, so that the first delta is no movement either
        config.write_text(
            config.read_text().replace('"init_lora_weights": true', '"init_lora_weights": false')
        )
    with pytest.raises(NothingMovedError, match="no trajectory"):
        extract(Trajectory.open(files), WeightExtrapolation(), 10)


def test_zero_deltas_are_still_whatever_a_does() -> None:
    assert LowRank(torch.zeros(4, 2), torch.randn(2, 3)).norm() == 0


def test_progress_ends_at_one(run_folder: Path) -> None:
    seen: list[float] = []
    extract(Trajectory.open(checkpoints(run_folder)), WeightExtrapolation(), 50, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize(("factor", "value"), [("lora_A", float("nan")), ("lora_B", float("-inf"))])
def test_nan_and_inf_are_found(factor: str, value: float, run_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "broken"
    shutil.copytree(run_folder, run)
    name, files = next(iter(MODULES)), checkpoints(run)
    tensors = load_file(files[2].model)
    tensors[f"base_model.model.{name}.{factor}.weight"][1, 2] = value
    save_file(tensors, files[2].model)
    with pytest.raises(NonFiniteWeightsError) as refusal:
        extract(Trajectory.open(files), NextPaper(), 50)
    assert (refusal.value.module, refusal.value.step) == (name, files[2].step)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_inf_are_found_in_a_module_that_never_trains(value: float, run_folder: Path) -> None:
    """Its B is 0 all along, so that its delta never changes; the last adapter's factors are written again."""
    files = checkpoints(run_folder)
    for broken in files[3:]:
        tensors = load_file(broken.model)
        tensors[f"base_model.model.{FROZEN}.lora_A.weight"][1, 2] = value
        save_file(tensors, broken.model)
    with pytest.raises(NonFiniteWeightsError) as refusal:
        extract(Trajectory.open(files), WeightExtrapolation(), 50)
    assert (refusal.value.module, refusal.value.step) == (FROZEN, files[3].step)
    assert refusal.value.path == files[3].model


def test_a_span_of_nothing_on_an_adapter_that_is_there_has_no_triple() -> None:
    """What is left of products that cancel is some 1e-160, whose inverse is none."""
    drift = Drift.of([10, 20, 30, 40], [20], starts_at_base=True)
    one, other = (torch.ones(30, 4) * size for size in (1, 2))
    A = random_factors(1, 30, 20, 4, seed=0).A * drift.points
    factors = ModuleFactors((one, one, other, other, other), A, scaling=0.7)
    group, grams = grouped(factors), multiplied(factors)
    dones = done_before(drift.spans(0, 4), grams)
    (found,) = triples_of(group, grams, drift, later(drift), [(1, 3)], Seen.ALL, dones)
    for triples in (found.locals[1:], found.targets):
        assert not triples.sigma.any()
        assert not triples.u.any()
        assert not triples.v.any()


def test_what_rounding_leaves_is_no_triple() -> None:
    """A module of four outputs under factors of rank 16: 12 of the 16 singular values are rounding."""
    factors = random_factors(3, 4, 9, 16, seed=3)
    grams = multiplied(factors)
    delta: Delta = ((0, 1),)
    found = leading_triples(grams, [delta], [0], done_before(delta, grams), 8)
    assert found.sigma[0, 0, :4].all()
    assert not found.sigma[0, 0, 4:].any()
    assert not found.u[0, 0, 4:].any()
    assert not found.v[0, 0, 4:].any()
