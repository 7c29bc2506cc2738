"""The backtest: an earlier origin, nothing seen after it, and the scores of dense vectors."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from fixtures.adapters import scale_run, write_run
from fixtures.dense import checkpoints, dense_deltas, flat
from fixtures.methods import METHODS, PAPER
from safetensors.torch import load_file, save_file

from nextrapolate_numerics import (
    AbsentCheckpointError,
    AlphaRl,
    Autoregression,
    Backtest,
    Method,
    NextPaper,
    NoBacktestError,
    NothingToPredictError,
    NoUpdate,
    Relex,
    ScoreCountError,
    Scores,
    Soup,
    TooFewCheckpointsError,
    Trajectory,
    WeightExtrapolation,
    backtest,
    compare,
    extract,
)

MOVING = [method for method in METHODS if not isinstance(method, NoUpdate)]
LINE = AlphaRl(mode="line")
"""The sum of a rank-one matrix and of all that the last checkpoint holds."""


def write_line(folder: Path, steps: range) -> Path:
    """A run whose factors B grow linearly over a constant A: its deltas are on a straight line."""
    run = write_run(folder, steps)
    start = checkpoints(run)[0]
    for files in checkpoints(run)[1:]:
        tensors = load_file(start.model)
        for key in tensors:
            if "lora_B" in key:
                tensors[key] = tensors[key] * (files.step / start.step)
        save_file(tensors, files.model)
    return run


def backtested(method: Method, run: Path, horizon: int = 30) -> Backtest:
    return backtest(method, extract(Trajectory.open(checkpoints(run)), method, horizon), horizon)


@pytest.mark.parametrize("method", [*MOVING, LINE], ids=repr)
def test_scores_are_those_of_the_dense_vectors(method: Method, run_folder: Path) -> None:
    """The method, fitted on the files up to the origin alone, against the dense truth."""
    scores = backtested(method, run_folder)
    assert (scores.origin_step, scores.target_step) == (90, 120)
    files = checkpoints(run_folder)
    past = Trajectory.open([f for f in files if f.step <= 90])
    update = method.fit(extract(past, method, 30), 30)
    origin, target = (dense_deltas(files[index]) for index in (8, 11))
    true = {name: target[name] - origin[name] for name in target}
    predicted = {name: torch.zeros_like(true[name]) for name in true}
    for name in update.modules():
        low_rank = update.delta(name, past)
        predicted[name] = low_rank.B @ low_rank.A
    P, T = flat(predicted), flat(true)
    assert scores.total.cosine == pytest.approx(float(P @ T / (P.norm() * T.norm())), rel=1e-4)
    assert scores.total.relative_error == pytest.approx(float((P - T).norm() / T.norm()), rel=1e-4)
    assert scores.total.size_ratio == pytest.approx(float(P.norm() / T.norm()), rel=1e-4)
    assert scores.modules.keys() == update.modules()
    for name, of_module in scores.modules.items():
        p, t = predicted[name].flatten(), true[name].flatten()
        assert of_module.cosine == pytest.approx(float(p @ t / (p.norm() * t.norm())), rel=1e-4)
        assert of_module.relative_error == pytest.approx(float((p - t).norm() / t.norm()), rel=1e-4)
        assert of_module.size_ratio == pytest.approx(float(p.norm() / t.norm()), rel=1e-4)


def test_a_steady_run_is_predicted(tmp_path: Path) -> None:
    scores = backtested(WeightExtrapolation(), write_line(tmp_path / "run", range(10, 130, 10)))
    assert scores.total.cosine == pytest.approx(1)
    assert scores.total.relative_error < 1e-6
    assert scores.total.size_ratio == pytest.approx(1)


@pytest.mark.parametrize(("B", "A"), [(2.0**-136, 2.0**-136), (2.0**100, 2.0**100)])
def test_runs_of_any_size_are_scored(B: float, A: float, run_folder: Path) -> None:
    """Squared norms of which the product is beyond float64."""
    scores = backtested(WeightExtrapolation(window_steps=50), scale_run(run_folder, B, A))
    deltas = [flat(dense_deltas(files)) for files in checkpoints(run_folder)]
    P, T = 30 / 50 * (deltas[8] - deltas[3]), deltas[11] - deltas[8]
    p, t = P / T.norm(), T / T.norm()
    assert scores.total.cosine == pytest.approx(float(p @ t / p.norm()), rel=1e-6)
    assert scores.total.relative_error == pytest.approx(float((p - t).norm()), rel=1e-6)
    assert scores.total.size_ratio == pytest.approx(float(p.norm()), rel=1e-6)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_short_series_has_no_backtest(method: Method, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 30])
    horizon = 20 if isinstance(method, NextPaper) else 30
    with pytest.raises(NoBacktestError) as told:
        backtested(method, run, horizon)
    if not isinstance(method, NextPaper):
        assert told.value.why == "the series is too short to hold out 30 steps"
    measurable = []
    for shorter in (20, 10):
        with suppress(NoBacktestError):
            backtested(method, run, shorter)
            measurable.append(shorter)
    assert told.value.measurable_steps == measurable[0]


def test_a_method_that_has_too_little_to_learn_from_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", range(10, 60, 10))
    with pytest.raises(NoBacktestError, match=r"needs 2 .* has 1 when 40 steps are held out") as told:
        backtested(Autoregression(), run, 40)
    assert told.value.measurable_steps == 30
    assert backtested(Autoregression(), run, 30).origin_step == 20


@pytest.mark.parametrize(
    ("horizon", "why"),
    [
        (20, "no module changed from step 20 to step 40: there is nothing to compare"),
        (30, "no module changed from step 20 to step 40, so the steps after step 10 do not show how far"),
        (40, "the series is too short to hold out 40 steps"),
    ],
)
def test_a_tail_without_movement_has_no_backtest(horizon: int, why: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 30, 40])
    for step in (30, 40):
        shutil.rmtree(run / f"checkpoint-{step}")
        shutil.copytree(run / "checkpoint-20", run / f"checkpoint-{step}")
    with pytest.raises(NoBacktestError) as told:
        backtested(WeightExtrapolation(), run, horizon)
    assert told.value.why.startswith(why)
    assert told.value.measurable_steps is None


@pytest.mark.parametrize(("horizon", "measurable"), [(70, 50), (60, 50), (50, None), (10, None)])
def test_a_backtest_that_was_asked_before_a_checkpoint_that_came_twice_is_none(
    horizon: int, measurable: int | None, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", range(10, 110, 10))
    shutil.rmtree(run / "checkpoint-50")
    shutil.copytree(run / "checkpoint-40", run / "checkpoint-50")
    if measurable is None:
        assert backtested(WeightExtrapolation(), run, horizon).origin_step == 100 - horizon
        return
    with pytest.raises(NoBacktestError, match="no module changed from step 40 to step 50, so") as told:
        backtested(WeightExtrapolation(), run, horizon)
    assert told.value.measurable_steps == measurable


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.5])
def test_scores_of_a_scaled_update_are_those_of_the_scaled_vector(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    P, T = torch.randn(2, 9, generator=generator, dtype=torch.float64)

    def scores(P: torch.Tensor) -> Scores:
        cosine = P @ T / (P.norm() * T.norm()) if P.any() else 0.0
        return Scores(float(cosine), float((P - T).norm() / T.norm()), float(P.norm() / T.norm()))

    actual, expected = scores(P).scaled(alpha), scores(alpha * P)
    for field in ("cosine", "relative_error", "size_ratio"):
        assert getattr(actual, field) == pytest.approx(getattr(expected, field))


def test_one_comparison_is_the_backtest_of_each_method_at_that_step(run_folder: Path) -> None:
    """Checkpoints before the target show nothing, and one reading serves methods of either evidence."""
    trajectory = Trajectory.open(checkpoints(run_folder))
    until_target = Trajectory.open([files for files in checkpoints(run_folder) if files.step <= 100])
    for method, outcome in zip(
        METHODS, compare(trajectory, METHODS, at_step=70, horizon_steps=30), strict=True
    ):
        alone = backtest(method, extract(until_target, method, 30), 30)
        assert isinstance(outcome, Backtest)
        assert (outcome.origin_step, outcome.target_step) == (70, 100)
        assert outcome.seconds > 0
        assert outcome.modules.keys() == alone.modules.keys()
        for field in ("cosine", "relative_error", "size_ratio"):
            assert getattr(outcome.total, field) == pytest.approx(getattr(alone.total, field), rel=1e-6)


def test_a_comparison_takes_out_the_jumps_between_origin_and_target(tmp_path: Path) -> None:
    """A run on a straight line that was set back at 50 goes on along it, as far as the drift knows."""
    run = write_line(tmp_path / "run", range(10, 90, 10))
    for step in (60, 70, 80):
        shutil.rmtree(run / f"checkpoint-{step}")
        shutil.copytree(run / f"checkpoint-{step - 40}", run / f"checkpoint-{step}")
    shutil.copytree(run / "checkpoint-10", tmp_path / "jumps" / "checkpoint-50")
    trajectory = Trajectory.open(checkpoints(run), checkpoints(tmp_path / "jumps"))
    (outcome,) = compare(trajectory, [WeightExtrapolation()], at_step=40, horizon_steps=40)
    assert isinstance(outcome, Backtest)
    assert outcome.total.relative_error < 1e-6


@pytest.mark.parametrize("count", [12, 10, 9, 7])
@pytest.mark.parametrize("jumped", [False, True])
def test_a_comparison_takes_the_scores_of_the_series_whichever_checkpoints_it_reads(
    count: int, jumped: bool, run_folder: Path, tmp_path: Path
) -> None:
    """Of 12 it reads 8, and those at which a jump was made: the methods learn from the first 7 scores."""
    scores = tuple(0.1 + 0.03 * place + 0.01 * (place * 7 % 5) for place in range(12))
    misleading = (*scores[:7], 9.0, -9.0, 5.0, -5.0, 7.0)[:count]
    jumps = checkpoints(write_run(tmp_path / "jumps", [80], seed=5)) if jumped else []
    trajectory = Trajectory.open(checkpoints(run_folder), jumps)

    def outcomes(given: tuple[float, ...]) -> list[Mapping[str, Scores]]:
        methods: list[Method] = [AlphaRl(rewards=given), Soup(selection="greedy", scores=given)]
        found = compare(trajectory, methods, at_step=70, horizon_steps=30)
        return [outcome.modules for outcome in found if isinstance(outcome, Backtest)]

    assert len(outcomes(misleading)) == 2
    assert outcomes(misleading) == outcomes(scores[:7])
    assert outcomes(scores[:7]) != outcomes(scores[1:8])


def test_a_comparison_asks_for_the_scores_that_its_methods_learn_from(run_folder: Path) -> None:
    trajectory = Trajectory.open(checkpoints(run_folder))
    (outcome,) = compare(trajectory, [AlphaRl(rewards=(0.1, 0.2, 0.3))], at_step=70, horizon_steps=30)
    assert isinstance(outcome, ScoreCountError)
    assert "There are 3 rewards, but 7 checkpoints" in str(outcome)


def test_a_comparison_says_which_method_cannot_predict_and_why(run_folder: Path) -> None:
    trajectory = Trajectory.open(checkpoints(run_folder))
    line, learner = compare(trajectory, [WeightExtrapolation(), PAPER], at_step=30, horizon_steps=60)
    assert isinstance(line, Backtest)
    assert isinstance(learner, TooFewCheckpointsError)
    assert "at least 7 checkpoints" in str(learner)


def test_a_comparison_tells_what_a_method_warns_of(run_folder: Path) -> None:
    trajectory = Trajectory.open(checkpoints(run_folder))
    told, silent = compare(trajectory, [Relex(), WeightExtrapolation()], at_step=80, horizon_steps=20)
    assert isinstance(told, Backtest)
    assert isinstance(silent, Backtest)
    (warning,) = told.warnings
    assert "squared norm" in warning
    assert silent.warnings == ()


@pytest.mark.parametrize("steps", [[0, 10, 20], [10, 20, 30]])
def test_where_the_drift_begins_no_method_can_predict(steps: list[int], tmp_path: Path) -> None:
    """At step 0, and at the first checkpoint of a run whose factors did not start at the base model."""
    run = write_run(tmp_path / "run", steps)
    for config in (files.config for files in checkpoints(run)):
        config.write_text(
            config.read_text().replace('"init_lora_weights": true', '"init_lora_weights": false')
        )
    methods = [*METHODS, WeightExtrapolation(window_steps="auto")]
    outcomes = compare(Trajectory.open(checkpoints(run)), methods, at_step=steps[0], horizon_steps=10)
    assert {type(outcome) for outcome in outcomes} == {TooFewCheckpointsError}
    assert "at least 2 checkpoints" in str(outcomes[0])
    assert "to learn from at this spacing and horizon, but has 1" in str(outcomes[0])


@pytest.mark.parametrize(("at", "horizon", "missing"), [(35, 5, 35), (40, 15, 55)])
def test_a_comparison_says_which_checkpoints_there_are(
    at: int, horizon: int, missing: int, tmp_path: Path
) -> None:
    trajectory = Trajectory.open(checkpoints(write_run(tmp_path / "run", [10, 40, 60])))
    with pytest.raises(AbsentCheckpointError, match=rf"at step {missing}, .* 10, 40, 60: choose"):
        compare(trajectory, METHODS, at_step=at, horizon_steps=horizon)


def test_a_comparison_reads_nothing_after_its_target(run_folder: Path) -> None:
    trajectory = Trajectory.open(checkpoints(run_folder))
    for step in (80, 90, 110, 120):
        shutil.rmtree(run_folder / f"checkpoint-{step}")
    seen: list[float] = []
    outcomes = compare(trajectory, METHODS, at_step=70, horizon_steps=30, on_progress=seen.append)
    assert all(isinstance(outcome, Backtest) for outcome in outcomes)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_tail_without_movement_is_no_answer_to_a_comparison(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 30])
    shutil.rmtree(run / "checkpoint-30")
    shutil.copytree(run / "checkpoint-20", run / "checkpoint-30")
    (outcome,) = compare(
        Trajectory.open(checkpoints(run)), [WeightExtrapolation()], at_step=20, horizon_steps=10
    )
    assert isinstance(outcome, NothingToPredictError)
    assert "between step 20 and step 30" in str(outcome)
