"""A job from files to artifacts, in this process."""

import hashlib
import json
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
import torch
from fixtures.adapters import MODULES, write_adapter, write_run
from fixtures.jobs import input_adapter, job_over, run_inputs
from safetensors.torch import load_file, save_file
from torch import Tensor

from nextrapolate.methods import METHODS as KINDS
from nextrapolate.methods import default_methods, make_method
from nextrapolate.reading import read
from nextrapolate.schemas import (
    AutoMethod,
    AutoregressionMethod,
    DareMethod,
    ExpoMethod,
    Gate,
    Method,
    NextMethod,
    NoneMethod,
    Report,
    SoupMethod,
    Stage,
    WeightExtrapolationMethod,
)
from nextrapolate_numerics import NumericsError
from nextrapolate_store.records import JobInputs
from nextrapolate_worker import pipeline
from nextrapolate_worker.errors import CheckpointGone, NoSuchDevice
from nextrapolate_worker.messages import Start
from nextrapolate_worker.scoring import is_rival
from nextrapolate_worker.settings import Computing

AUTO, NEXT = AutoMethod(horizon_steps=20), NextMethod(horizon_steps=20)
LINE = WeightExtrapolationMethod(horizon_steps=20)
METHODS: list[Method] = [
    *(make_method(name, horizon_steps=20) for name in KINDS if name != "none"),
    NextMethod(preset="paper", horizon_steps=20, epochs=100, hidden_size=32, learning_rate=1e-3),
    SoupMethod(horizon_steps=20, selection="greedy", scores=tuple(-((i - 9) ** 2) for i in range(12))),
]
RIVALS = {method.name for method in default_methods() if is_rival(method)}


def work(
    run: Path, folder: Path, method: Method, inputs: JobInputs | None = None, device: str = "cpu"
) -> Start:
    folder.mkdir(parents=True, exist_ok=True)
    return Start(
        job="01JOB",
        fence=1,
        tenant="default",
        request=job_over(run, method),
        inputs=inputs or run_inputs(run),
        data_dir=folder / "data",
        folder=folder,
        stages=folder.parent / "stages",
        computing=Computing(device=device, threads=1),
    )


def ignore(stage: Stage, fraction: float) -> None:
    pass


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_leaves_an_adapter_and_its_report(
    method: Method, run_folder: Path, tmp_path: Path
) -> None:
    told: list[tuple[Stage, float]] = []
    done = pipeline.run(work(run_folder, tmp_path / "out", method), lambda *news: told.append(news))

    assert list(done.stage_seconds) == list(Stage)
    assert set(done.artifacts) == {
        "adapter_model.safetensors", "adapter_config.json", "report.json", "report.html", "README.md",
    }  # fmt: skip
    for name, info in done.artifacts.items():
        data = (tmp_path / "out" / name).read_bytes()
        assert (info.bytes, info.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert list(dict.fromkeys(stage for stage, _ in told)) == list(Stage)
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)

    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert [profile.stage for profile in report.stages] == list(Stage)
    counted = {profile.stage: profile.bytes_read for profile in report.stages if profile.bytes_read}
    sizes = [path.stat().st_size for path in run_folder.glob("checkpoint-*/adapter_model.safetensors")]
    assert counted[Stage.RESOLVE] == sum(sizes)
    assert 0.5 * sum(sizes) < counted[Stage.EXTRACT] < sum(sizes)  # no headers
    assert [profile.stage for profile in report.stages if profile.flop_rate] == [Stage.EXTRACT]
    assert report.target_step == method.target_step(120) == (140 if method.is_forecast else 120)
    assert report.is_forecast is method.is_forecast
    assert (
        (report.recommended is None)
        is report.verdict.startswith("Not a forecast")
        is (not method.is_forecast)
    )
    assert report.backtest is not None
    assert report.peak_memory_bytes > 0
    assert len(set(report.warnings)) == len(report.warnings)
    last = load_file(run_folder / "checkpoint-120" / "adapter_model.safetensors")
    made = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert made.keys() == last.keys()
    assert {module.name for module in report.modules if not module.moved} == {list(MODULES)[-1]}
    changed = {module.name for module in report.modules if module.moved and not module.gated}
    assert changed
    for key, tensor in made.items():
        name = key.removeprefix("base_model.model.").split(".lora_")[0]
        if name not in changed:
            assert torch.equal(tensor, last[key]), key
        elif "lora_B" in key:  # an update within A's rows, such as ExPO's, leaves A
            assert not torch.equal(tensor, last[key]), key


def test_the_report_shows_the_run_and_what_other_methods_would_do(run_folder: Path, tmp_path: Path) -> None:
    pipeline.run(work(run_folder, tmp_path / "out", AUTO), ignore)
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert {scored.method.name for scored in report.rivals} == RIVALS - {"auto"}
    assert report.choice is not None
    page = unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert report.choice.why in page
    assert all(candidate.label in page for candidate in report.choice.candidates)
    assert {kind.kind for kind in report.choice.kinds} == {"q_proj", "down_proj"}
    errors = [scored.total.relative_error for scored in report.rivals if scored.total]
    assert errors == sorted(errors)
    assert all(scored.method.horizon_steps == 20 and not scored.modules for scored in report.rivals)
    assert report.geometry is not None
    assert [step.step for step in report.geometry.track] == report.steps
    assert report.spectrum is not None
    assert report.recommended is ("speaks for" in report.verdict)
    assert report.spectrum.kept[-1] <= report.spectrum.wanted[-1]


def test_the_report_and_the_model_card_name_the_run(run_folder: Path, tmp_path: Path) -> None:
    inputs = replace(run_inputs(run_folder), series_name="grpo-7B")
    named = work(run_folder, tmp_path / "named", LINE, inputs)
    labelled = work(run_folder, tmp_path / "labelled", LINE, inputs)
    request = labelled.request.model_copy(update={"labels": {"run": "seed 7"}})
    for made, name in ((named, "grpo-7B"), (labelled.model_copy(update={"request": request}), "seed 7")):
        pipeline.run(made, ignore)
        assert Report.model_validate_json((made.folder / "report.json").read_bytes()).run == name
        assert f"of the run `{name}`" in (made.folder / "README.md").read_text(encoding="utf-8")


def test_the_rivals_are_no_jump_and_the_forecasts_that_take_moments() -> None:
    assert {"auto", "autoregression", "weight-extrapolation", "relex", "expo", "none"} <= RIVALS
    assert RIVALS.isdisjoint({"next", "alpharl", "maec", "dare", "soup", "wsm"})


@pytest.mark.parametrize("method", [NextMethod(horizon_steps=20), AutoregressionMethod(horizon_steps=20)])
def test_a_report_says_whether_the_default_would_do_better(
    method: Method, run_folder: Path, tmp_path: Path
) -> None:
    pipeline.run(work(run_folder, tmp_path / "out", method), ignore)
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert {scored.method.name for scored in report.rivals} == RIVALS - {method.name}


@pytest.mark.parametrize("gate", [Gate(), Gate(min_energy_ratio=1.0), Gate(min_backtest_cosine=1.0)])
def test_a_jump_of_which_the_gate_leaves_nothing_is_not_recommended(
    gate: Gate, run_folder: Path, tmp_path: Path
) -> None:
    start = work(run_folder, tmp_path / "out", LINE)
    request = start.request.model_copy(update={"gate": gate})
    pipeline.run(start.model_copy(update={"request": request}), ignore)
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert report.backtest is not None
    assert report.backtest.total.relative_error < 1
    gated = len(report.gated_modules)
    assert (report.recommended, gated) == ((True, 0) if gate == Gate() else (None, 2))
    assert (report.backtest.applied.relative_error < 1) is bool(report.recommended)
    assert ("The gate left 2 of 3 modules at the last checkpoint" in report.verdict) is (gated == 2)
    errors = [scored.total.relative_error for scored in report.rivals if scored.total]
    assert (min(errors) < 1) is bool(report.recommended)


@pytest.mark.parametrize(
    ("horizon", "why"),
    [
        (200, "the series is too short to hold out 200 steps (horizon 110 could be measured on this run)"),
        (
            20,
            "no module changed from step 100 to step 120: there is nothing to compare a prediction with",
        ),
        (
            30,
            "no module changed from step 100 to step 120, so the steps after step 90 do not show how far "
            "training goes",
        ),
    ],
)
def test_a_report_without_a_backtest_says_why(
    horizon: int, why: str, run_folder: Path, tmp_path: Path
) -> None:
    if horizon < 100:
        for step in (110, 120):
            shutil.rmtree(run_folder / f"checkpoint-{step}")
            shutil.copytree(run_folder / "checkpoint-100", run_folder / f"checkpoint-{step}")
    pipeline.run(work(run_folder, tmp_path / "out", AutoMethod(horizon_steps=horizon)), ignore)
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert (report.backtest, report.recommended, report.unmeasured) == (None, None, why)
    assert report.verdict.startswith(f"{why[0].upper()}{why[1:]}.")
    assert any("No module changed" in warning for warning in report.warnings) is (horizon < 100)
    assert f"There is no backtest: {why}." in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_another_runs_checkpoint_is_named_and_no_jump_recommended(run_folder: Path, tmp_path: Path) -> None:
    last = run_folder / "checkpoint-120"
    foreign = write_run(tmp_path / "other", [120], seed=5) / last.name
    inputs = run_inputs(run_folder)
    inputs = replace(inputs, checkpoints=(*inputs.checkpoints[:-1], input_adapter(foreign, 120)))
    pipeline.run(work(run_folder, tmp_path / "out", AUTO, inputs), ignore)
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert [(found.begin_step, found.end_step) for found in report.geometry.breaks] == [(110, 120)]
    assert report.recommended is False
    assert report.verdict.startswith("Not to be trusted: from step 110 to 120")
    assert any("checkpoints of two runs" in warning for warning in report.warnings)
    assert read(report).tone == "bad"


@pytest.mark.parametrize("jumped", [False, True])
def test_momentum_over_jumps_is_not_judged_by_what_training_did(
    jumped: bool, run_folder: Path, tmp_path: Path
) -> None:
    """Without jumps its update is that of any line."""
    method = WeightExtrapolationMethod(horizon_steps=20, window_steps=20, momentum=True)
    jumps = write_run(tmp_path / "jumps", [60], seed=5) / "checkpoint-60"
    inputs = run_inputs(run_folder, jumps=(input_adapter(jumps, 60),) if jumped else ())
    pipeline.run(work(run_folder, tmp_path / "out", method, inputs), ignore)
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert report.backtest is not None
    assert (report.recommended is None) is jumped
    assert report.verdict.startswith("Momentum") is jumped
    assert (read(report).tone == "unknown") is jumped


def test_none_leaves_the_last_checkpoint_and_scores_as_no_jump(run_folder: Path, tmp_path: Path) -> None:
    pipeline.run(work(run_folder, tmp_path / "out", NoneMethod(horizon_steps=20)), ignore)
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert report.target_step == 120
    assert report.backtest is not None
    assert report.backtest.total.relative_error == 1
    assert report.verdict.startswith("No module got an update: the adapter is checkpoint 120 as it was.")
    assert "Evaluate the adapter" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    made = load_file(tmp_path / "out" / "adapter_model.safetensors")
    last = load_file(run_folder / "checkpoint-120" / "adapter_model.safetensors")
    assert all(torch.equal(made[key], last[key]) for key in last)


def test_what_a_selection_could_not_hold_is_reported(run_folder: Path, tmp_path: Path) -> None:
    pipeline.run(work(run_folder, tmp_path / "out", DareMethod(horizon_steps=20)), ignore)
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    shares = {module.name: module.update_discarded for module in report.modules}
    assert shares.pop(list(MODULES)[-1]) == 0
    assert min(shares.values()) < report.update_discarded < max(shares.values())
    assert any(f"discards {report.update_discarded:.1%}" in warning for warning in report.warnings)


def test_a_horizon_beyond_the_evidence_is_said_whatever_the_method(run_folder: Path, tmp_path: Path) -> None:
    for horizon, beyond in ((120, False), (180, True)):
        folder = tmp_path / f"out-{horizon}"
        pipeline.run(work(run_folder, folder, ExpoMethod(horizon_steps=horizon)), ignore)
        report = Report.model_validate_json((folder / "report.json").read_bytes())
        said = "180 steps is 1.5 times the 120 steps that this series covers" in " ".join(report.warnings)
        assert said == beyond


def test_the_same_job_gives_the_same_bytes(run_folder: Path, tmp_path: Path) -> None:
    first, second = (
        pipeline.run(work(run_folder, tmp_path / name / "out", AUTO), ignore) for name in ("one", "two")
    )
    assert first.artifacts["adapter_model.safetensors"] == second.artifacts["adapter_model.safetensors"]


def test_a_jump_is_not_taken_for_drift(run_folder: Path, tmp_path: Path) -> None:
    def leapt(step: int) -> dict[str, Tensor]:
        stored = load_file(run_folder / f"checkpoint-{step}" / "adapter_model.safetensors")
        return {key: tensor + 3.0 if "lora_B" in key else tensor for key, tensor in stored.items()}

    def drift(inputs: JobInputs, out: str) -> float:
        pipeline.run(work(run_folder, tmp_path / out, LINE, inputs), ignore)
        report = Report.model_validate_json((tmp_path / out / "report.json").read_bytes())
        assert report.geometry is not None
        assert report.jumps == [jump.step for jump in inputs.jumps]
        return report.geometry.track[-1].drift_norm

    without = drift(run_inputs(run_folder), "without")
    landed = write_adapter(tmp_path / "landed", leapt(60))
    for step in range(70, 130, 10):
        save_file(leapt(step), run_folder / f"checkpoint-{step}" / "adapter_model.safetensors")
    told = drift(run_inputs(run_folder, jumps=(input_adapter(landed, 60),)), "told")
    untold = drift(run_inputs(run_folder), "untold")
    assert abs(told - without) < 0.2 * abs(untold - without)  # A goes on below the leap


def test_a_file_that_went_away_is_named(run_folder: Path, tmp_path: Path) -> None:
    inputs = run_inputs(run_folder)
    (run_folder / "checkpoint-50" / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointGone, match=r"checkpoint 50: adapter_model\.safetensors"):
        pipeline.run(work(run_folder, tmp_path / "out", NEXT, inputs), ignore)


def test_a_device_that_is_not_there_is_the_servers_fault(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NoSuchDevice, match="NEXTRAPOLATE_DEVICE"):
        pipeline.run(work(run_folder, tmp_path / "out", NEXT, device="cuda:99"), ignore)


def test_dora_is_refused(run_folder: Path, tmp_path: Path) -> None:
    config = run_folder / "checkpoint-30" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_dora": True}))
    with pytest.raises(NumericsError, match="DoRA"):
        pipeline.run(work(run_folder, tmp_path / "out", NEXT), ignore)


def test_the_page_escapes_what_the_run_brought(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", range(10, 70, 10), modules={"layers.0.<b>x</b>.q_proj": (8, 8)})
    pipeline.run(work(run, tmp_path / "out", NEXT), ignore)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
