"""Backtest and inspection from files to report.json, in this process."""

from pathlib import Path

import pytest
from fixtures.adapters import MODULES, write_run
from fixtures.jobs import run_inputs

from nextrapolate.methods import default_methods, make_method
from nextrapolate.schemas import (
    BacktestCreate,
    Comparison,
    InspectCreate,
    Inspection,
    JobCreate,
    JobRequest,
    Method,
    Report,
    Stage,
)
from nextrapolate_worker import pipeline
from nextrapolate_worker.messages import Start
from nextrapolate_worker.settings import Computing


def run_task(request: JobRequest, run: Path, folder: Path) -> tuple[str, list[tuple[Stage, float]]]:
    """Run it; gives report.json, and what was told on the way."""
    folder.mkdir()
    told: list[tuple[Stage, float]] = []
    work = Start(
        job="01JOB",
        fence=1,
        tenant="default",
        request=request,
        inputs=run_inputs(run),
        data_dir=folder / "data",
        folder=folder,
        stages=folder.parent / "stages",
        computing=Computing(device="cpu", threads=1),
    )
    done = pipeline.run(work, lambda *news: told.append(news))
    assert set(done.artifacts) == {"report.json", "report.html"}
    assert list(done.stage_seconds) == list(dict.fromkeys(stage for stage, _ in told))
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)
    return (folder / "report.json").read_text(), told


def backtest_of(*methods: str | Method, at: int = 80, horizon_steps: int = 20) -> BacktestCreate:
    chosen = [make_method(method) for method in methods] or None
    return BacktestCreate(series="s", at=at, horizon_steps=horizon_steps, methods=chosen)


def test_a_backtest_ranks_the_methods(run_folder: Path, tmp_path: Path) -> None:
    request = backtest_of("none", "weight-extrapolation", "expo")
    text, told = run_task(request, run_folder, tmp_path / "out")
    report = Comparison.model_validate_json(text)
    assert (report.at, report.target_step) == (80, 100)
    assert {scored.method.horizon_steps for scored in report.methods} == {20}
    errors = [scored.total.relative_error for scored in report.methods if scored.total]
    assert errors == sorted(errors)
    best, last = report.methods[0], report.methods[-1]
    assert best.method.name == "weight-extrapolation"
    assert {module.name for module in best.modules} == set(MODULES) - {list(MODULES)[-1]}
    assert last.method.name == "none"
    assert last.total is not None
    assert last.total.relative_error == 1.0
    assert report.verdict.startswith("weight-extrapolation predicts best, asked at step 80 for step 100")
    assert {stage for stage, _ in told} == {Stage.RESOLVE, Stage.LOAD, Stage.BACKTEST, Stage.PUBLISH}


def test_a_backtest_reports_what_its_methods_warn_of(run_folder: Path, tmp_path: Path) -> None:
    text, _ = run_task(backtest_of("relex", "none"), run_folder, tmp_path / "out")
    warnings = {
        scored.method.name: scored.warnings for scored in Comparison.model_validate_json(text).methods
    }
    assert warnings["none"] == []
    (warning,) = warnings["relex"]
    assert "of the window's squared norm" in warning
    assert "of the window&#39;s squared norm" in (tmp_path / "out" / "report.html").read_text()


def test_a_backtest_scores_the_update_as_it_would_be_applied(run_folder: Path, tmp_path: Path) -> None:
    methods = [make_method("expo", alpha=alpha) for alpha in (0.1, 0.2)]
    request = BacktestCreate(series="s", at=80, horizon_steps=20, methods=methods)
    report = Comparison.model_validate_json(run_task(request, run_folder, tmp_path / "out")[0])
    sizes = {scored.method.alpha: scored.total.size_ratio for scored in report.methods if scored.total}
    assert sizes[0.2] == pytest.approx(2 * sizes[0.1])


def test_a_backtest_asks_every_method_where_none_is_named(run_folder: Path, tmp_path: Path) -> None:
    report = Comparison.model_validate_json(run_task(backtest_of(), run_folder, tmp_path / "out")[0])
    assert {scored.method.name for scored in report.methods} == {m.name for m in default_methods()}


def test_a_method_that_cannot_predict_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 40])
    learns_from_pairs = make_method("next", preset="paper")
    request = backtest_of(learns_from_pairs, "weight-extrapolation", at=20, horizon_steps=20)
    report = Comparison.model_validate_json(run_task(request, run, tmp_path / "out")[0])
    line, learner = report.methods
    assert line.total is not None
    assert learner.total is None
    assert learner.reason is not None
    assert "checkpoints" in learner.reason


def test_a_backtest_where_the_run_begins_says_that_no_method_can_predict(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0, 10, 20, 30])
    request = BacktestCreate(series="s", at=0, horizon_steps=10)
    report = Comparison.model_validate_json(run_task(request, run, tmp_path / "out")[0])
    assert {method.total for method in report.methods} == {None}
    assert report.verdict.startswith("No method could predict, asked at step 0 for step 10")


def test_an_inspection_measures_every_kind_of_module(run_folder: Path, tmp_path: Path) -> None:
    text, _ = run_task(InspectCreate(series="s"), run_folder, tmp_path / "out")
    report = Inspection.model_validate_json(text)
    assert report.asked_method == JobCreate(series="s").method.name
    assert report.verdict.startswith(f"Extrapolation should pay on this run: {report.asked_method}, asked at")
    assert report.still_modules == [list(MODULES)[-1]]
    assert [(kind.kind, kind.modules) for kind in report.kinds] == [("down_proj", 1), ("q_proj", 1)]
    assert all(len(kind.energy_ratio) == len(report.steps) for kind in report.kinds)
    assert [step.step for step in report.track] == report.steps
    assert report.track[0].speed is None
    assert all(step.speed and step.speed > 0 for step in report.track[1:])
    assert all(step.steadiness is not None for step in report.track[2:])
    assert {module.name for module in report.linearity} == set(MODULES) - {list(MODULES)[-1]}


def test_a_run_too_short_to_judge_is_inspected_all_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [10, 20, 30])
    text, _ = run_task(InspectCreate(series="s"), run, tmp_path / "out")
    report = Inspection.model_validate_json(text)
    assert len(report.track) == 3
    assert report.linearity[0].held_out_pooled is None


def test_reports_are_told_apart_by_their_task() -> None:
    assert {model.model_fields["task"].default for model in (Report, Comparison, Inspection)} == {
        "extrapolate",
        "backtest",
        "inspect",
    }
