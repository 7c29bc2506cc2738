"""NExt as published: what it is shown, what it answers, and that it learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.predictor import Samples as BenchmarkSamples
from benchmarks.predictor import batched, looped
from fixtures.adapters import scale_run, write_run, write_turning_run
from fixtures.dense import checkpoints, dense_deltas, leading_triple
from torch import Tensor, nn

from nextrapolate_numerics import (
    Extraction,
    NextPaper,
    NonFiniteResultError,
    TooFewCheckpointsError,
    Trajectory,
    extract,
)
from nextrapolate_numerics.methods.next_paper import Samples
from nextrapolate_numerics.methods.predictor import Lesson, Predictor, Training, predict
from nextrapolate_numerics.update import RankOne

QUICK = NextPaper(epochs=5)


def extraction_of(run: Path, horizon: int = 30) -> Extraction:
    return extract(Trajectory.open(checkpoints(run)), QUICK, horizon)


def fit(method: NextPaper, extraction: Extraction, horizon: int = 30) -> RankOne:
    update = method.fit(extraction, horizon)
    assert isinstance(update, RankOne)
    return update


def test_it_learns_where_a_turning_run_goes(tmp_path: Path) -> None:
    files = checkpoints(write_turning_run(tmp_path / "run"))
    past = Trajectory.open(files[:-3])
    method = NextPaper(epochs=300, learning_rate=1e-3)
    triple = fit(method, extract(past, method, 30)).triples["turning"]
    first, last = (dense_deltas(files[at])["turning"] for at in (-4, -1))
    sigma, u, v = leading_triple(last - first)
    assert abs(float(triple.u.double() @ u)) > 0.98
    assert abs(float(triple.v.double() @ v)) > 0.98
    assert float(triple.sigma) == pytest.approx(sigma, rel=0.3)
    assert float((triple.u.double() @ u) * (triple.v.double() @ v)) > 0


def test_a_length_that_training_did_not_get_to_is_told(tmp_path: Path) -> None:
    """Its steps are of one size, whatever the sigma it is shown."""
    run = write_turning_run(tmp_path / "run")
    method = NextPaper(epochs=300, learning_rate=1e-3)
    assert not fit(method, extraction_of(run)).warnings
    extraction = extraction_of(scale_run(run, 2.0**9, 1.0))
    update = fit(method, extraction)
    least = float(extraction.triples["turning"].targets.sigma.min())
    assert 0 < float(update.triples["turning"].sigma) < 0.5 * least
    (told,) = update.warnings
    assert f"learned from changes with {least:.3g} at least: 300 epochs at a learning rate of 0.001" in told


def test_answers_are_unit_vectors_and_lengths(run_folder: Path) -> None:
    for triple in fit(QUICK, extraction_of(run_folder)).triples.values():
        assert float(triple.u.norm()) == pytest.approx(1)
        assert float(triple.v.norm()) == pytest.approx(1)
        assert float(triple.sigma) >= 0
        assert triple.sigma.shape == ()


def test_only_modules_that_moved_are_predicted(run_folder: Path) -> None:
    extraction = extraction_of(run_folder)
    assert fit(QUICK, extraction).modules() == extraction.moved


def test_lengths_that_float32_cannot_hold_are_refused(run_folder: Path) -> None:
    with pytest.raises(NonFiniteResultError, match=r"overflows float32\. .* choose another method"):
        fit(QUICK, extraction_of(scale_run(run_folder, 2.0**70, 2.0**70)))


def test_same_seed_same_bytes_other_seed_other_bytes(run_folder: Path) -> None:
    extraction = extraction_of(run_folder)
    random_state = torch.get_rng_state()
    first, again, other = (fit(NextPaper(epochs=5, seed=seed), extraction) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, triple in first.triples.items():
        assert torch.equal(triple.u, again.triples[name].u)
        assert torch.equal(triple.sigma, again.triples[name].sigma)
        assert not torch.equal(triple.u, other.triples[name].u)


def test_signs_are_aligned_to_the_checkpoint_and_it_to_the_last(run_folder: Path) -> None:
    extraction = extraction_of(run_folder)
    starts = [start - 1 for start, _ in extraction.pairs]
    for triples in extraction.triples.values():
        samples = Samples.of(triples, starts, torch.ones(len(starts)))
        globals_u, locals_u = samples.inputs.u
        globals_v, locals_v = samples.inputs.v
        last_u, last_v = samples.query.u[0], samples.query.v[0]
        assert bool((globals_u @ last_u + globals_v @ last_v >= 0).all())
        for u, v in ((locals_u, locals_v), (samples.targets.u, samples.targets.v)):
            assert bool(((u * globals_u).sum(-1) + (v * globals_v).sum(-1) >= 0).all())


def test_ablations_change_the_answer(run_folder: Path) -> None:
    extraction = extraction_of(run_folder)
    full, no_global, no_local = (
        fit(method, extraction)
        for method in (QUICK, NextPaper(epochs=5, use_global=False), NextPaper(epochs=5, use_local=False))
    )
    for name in extraction.moved:
        answers = [update.triples[name].u for update in (full, no_global, no_local)]
        assert not torch.equal(answers[0], answers[1])
        assert not torch.equal(answers[1], answers[2])


def test_without_any_input_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="cannot both be off"):
        NextPaper(use_global=False, use_local=False)


def test_uneven_steps_are_paired_with_the_nearest_and_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 40, 50, 90, 100])
    extraction = extraction_of(run, horizon=35)
    assert [end - start for start, end in extraction.pairs] == [3, 2, 2, 1]
    assert "30 to 50 steps" in fit(QUICK, extraction, horizon=35).warnings[0]


def test_even_steps_need_no_warning(run_folder: Path) -> None:
    assert not [warning for warning in fit(QUICK, extraction_of(run_folder)).warnings if "steps" in warning]


def test_a_module_without_a_positive_singular_value_is_said(run_folder: Path) -> None:
    update = fit(QUICK, extraction_of(run_folder))
    assert isinstance(update, RankOne)
    vanished = [triple for triple in update.triples.values() if triple.sigma == 0]
    assert vanished
    assert f"for {len(vanished)} modules" in update.warnings[0]


def test_too_few_checkpoints(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", range(10, 50, 10))
    with pytest.raises(TooFewCheckpointsError, match=r"at least 6 checkpoints.* has 4"):
        extraction_of(run, horizon=50)


def test_predictor_is_the_papers() -> None:
    """Encoder d-256-d-ReLU-256-d for each input, decoder 2d-256-2d-ReLU-256-d."""
    predictor = Predictor(6, inputs=2, hidden_size=256, generator=torch.Generator())
    encoder = [(6, 256), (256, 6), (6, 256), (256, 6)]
    decoder = [(12, 256), (256, 12), (12, 256), (256, 6)]
    layers = [m for m in predictor.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [*encoder, *encoder, *decoder]
    for layer in layers:
        assert float(layer.weight.detach().abs().max()) <= layer.in_features**-0.5
    parts = torch.randn(2, 3, 6)
    codes = [through(layers[:4], parts[0]), through(layers[4:8], parts[1])]
    expected = through(layers[8:], torch.cat(codes, dim=-1))
    torch.testing.assert_close(predictor(parts), expected)


def through(layers: list[nn.Linear], part: Tensor) -> Tensor:
    enter, widen, narrow, leave = layers
    answer: Tensor = leave(narrow(torch.relu(widen(enter(part)))))
    return answer


def test_one_batch_trains_like_the_loop_over_checkpoints() -> None:
    samples = BenchmarkSamples.random(pairs=4, modules=3, length=10, seed=0)
    training = Training(hidden_size=16, epochs=30, learning_rate=1e-3)
    cpu, generators = torch.device("cpu"), (torch.Generator().manual_seed(1) for _ in range(3))
    (ours,) = batched([samples], training, next(generators), cpu)
    (theirs,) = looped([samples], training, next(generators), cpu)
    (untrained,) = looped([samples], replace(training, epochs=0), next(generators), cpu)
    assert float((theirs - untrained).norm()) > 0.1 * float(theirs.norm())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_long_batch_trains_like_the_loop_over_checkpoints() -> None:
    """It is taken in portions, whose gradients add up."""
    samples = BenchmarkSamples.random(pairs=5, modules=300, length=2000, seed=0)
    training = Training(hidden_size=16, epochs=3, learning_rate=1e-3)
    assert len(list(Lesson(samples.parts, samples.targets, samples.parts).portions())) == 2
    cpu, generators = torch.device("cpu"), (torch.Generator().manual_seed(1) for _ in range(2))
    (ours,) = batched([samples], training, next(generators), cpu)
    (theirs,) = looped([samples], training, next(generators), cpu)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_training_takes_the_loss_down() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(2, 4, 3, 5, generator=generator)
    targets = 0.5 * parts.sum(dim=0)

    def loss(epochs: int) -> float:
        lesson, training = Lesson(parts, targets, parts), Training(32, epochs, 1e-3)
        (answers,) = predict(
            [lesson], targets[0].numel(), training, torch.Generator().manual_seed(1), lambda _: None
        )
        return float((answers - targets).abs().sum())

    assert loss(200) < 0.5 * loss(1)


def test_progress_ascends_to_one(run_folder: Path) -> None:
    seen: list[float] = []
    QUICK.fit(extraction_of(run_folder), 30, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
