"""Short runs of TRL's trainers on an untrained model: what they leave, and how they go on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.rlvr.evaluate import Estimate, grade
from benchmarks.rlvr.jumps import Run, extrapolated
from benchmarks.rlvr.record import RECORD, OtherRunError, Record, Settings, newest_checkpoint
from benchmarks.rlvr.run import train
from demo.evaluate import Accuracy
from demo.language import make_tokenizer
from demo.make_base import make_model
from demo.task import ADDITION, Kind
from transformers import set_seed

from nextrapolate.folders import find_checkpoints
from nextrapolate.methods import make_method
from nextrapolate.schemas import Gate

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]

SILENCE = replace(ADDITION, name="silence", kinds=(Kind(1.0, lambda question: ""),), max_answer_tokens=2)
"""An untrained model says nothing once in 32 times: enough to be rewarded from the first step on."""
SETTINGS = Settings("silence", "grpo", learning_rate=1e-3, seed=3, steps=6, save_every=2, measure_every=2)
HELD_OUT = 50
MODEL = "checkpoint-2/adapter_model.safetensors"


class StoppedError(Exception):
    """The run was interrupted."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    set_seed(0)
    folder = tmp_path_factory.mktemp("base")
    make_model(hidden=16, layers=1, intermediate=16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def made(
    settings: Settings, base: Path, out: Path, on_step: Callable[[int], None] = lambda step: None
) -> Record:
    def told(step: int, accuracy: Accuracy) -> None:
        on_step(step)

    return train(settings, SILENCE, base, out, told, HELD_OUT)


@pytest.fixture(scope="module", params=["grpo", "rloo"])
def settings(request: pytest.FixtureRequest) -> Settings:
    return replace(SETTINGS, trainer=request.param)


@pytest.fixture(scope="module")
def run(settings: Settings, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    made(settings, base, out)
    return out


def adapters(run: Path) -> dict[int, bytes]:
    return {
        found.step: found.files["adapter_model.safetensors"].read_bytes() for found in find_checkpoints(run)
    }


def test_a_run_leaves_its_checkpoints_and_their_accuracies(run: Path, base: Path, settings: Settings) -> None:
    record = Record.read(run / RECORD)
    assert record.settings == settings
    assert [row.step for row in record.rows] == [0, 2, 4, 6]
    assert len(set(adapters(run).values())) == 3
    _, questions = SILENCE.split(HELD_OUT)
    saved = [None, *(run / f"checkpoint-{step}" for step in (2, 4, 6))]
    graded = [grade(SILENCE, base, adapter, questions).accuracy for adapter in saved]
    assert [row.accuracy.sampled for row in record.rows] == pytest.approx([a.sampled for a in graded])
    assert record.rows[-1].accuracy.sampled > record.rows[0].accuracy.sampled


def test_only_the_newest_checkpoint_keeps_what_going_on_needs(run: Path) -> None:
    assert newest_checkpoint(run) == run / "checkpoint-6"
    for step in (2, 4):
        assert {path.name for path in (run / f"checkpoint-{step}").iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    run: Path, base: Path, settings: Settings, tmp_path: Path
) -> None:
    def stop(step: int) -> None:
        if step == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        made(settings, base, tmp_path, stop)
    steps: list[int] = []
    record = made(settings, base, tmp_path, steps.append)
    assert steps == [3, 4, 5, 6]
    assert adapters(tmp_path) == adapters(run)
    assert [row.accuracy for row in record.rows] == [row.accuracy for row in Record.read(run / RECORD).rows]


def test_a_finished_run_is_not_repeated(run: Path, base: Path, settings: Settings) -> None:
    steps: list[int] = []
    assert made(settings, base, run, steps.append) == Record.read(run / RECORD)
    assert steps == []


def test_another_run_in_the_same_folder_is_refused(run: Path, base: Path, settings: Settings) -> None:
    with pytest.raises(OtherRunError, match="holds another run"):
        made(replace(settings, seed=4), base, run)


def test_seeds_and_trainers_tell_runs_apart(base: Path, tmp_path: Path, run: Path) -> None:
    made(replace(SETTINGS, seed=4, steps=2), base, tmp_path)
    assert (tmp_path / MODEL).read_bytes() != (run / MODEL).read_bytes()


def test_a_jump_is_graded_like_a_checkpoint(run: Path, base: Path, tmp_path: Path) -> None:
    benchmark = Run(run, SILENCE, base, HELD_OUT)
    before = benchmark.grade(run / "checkpoint-4")
    stood, jumped = tmp_path / "stood", tmp_path / "jumped"
    for folder, name in ((stood, "none"), (jumped, "weight-extrapolation")):
        folder.mkdir()
        method = make_method(name, horizon_steps=2)
        extrapolated(find_checkpoints(run, until=4), method, Gate(min_backtest_cosine=-1), folder)
    assert torch.equal(benchmark.grade(stood).sampled, before.sampled)
    assert not torch.equal(benchmark.grade(jumped).sampled, before.sampled)


def test_a_folder_without_an_adapter_is_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no adapter"):
        grade(SILENCE, base, tmp_path, ["10+10="])


def test_an_estimate_is_a_mean_and_its_standard_error() -> None:
    estimate = Estimate.of(torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64))
    assert estimate.mean == 0.5
    assert estimate.error == pytest.approx((1 / 3 / 4) ** 0.5)
    assert str(estimate) == "0.500 ± 0.289"
