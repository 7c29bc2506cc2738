"""Fails when TRL renames what the plugin takes, or stops meaning by it what the plugin takes it for."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from fixtures.grpo import MakeTrainer, tiny_rloo_trainer
from transformers import TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from nextrapolate_trainer import trl_internals

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Forget(TrainerCallback):
    """Drops the buffered completions before the given step."""

    def __init__(self, trainer: GRPOTrainer, after_step: int) -> None:
        self._trainer = trainer
        self._after_step = after_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._after_step:
            trl_internals.forget_completions(self._trainer)


def count_generations(trainer: GRPOTrainer) -> list[int]:
    """Return a list that will hold the step of each generation of completions."""
    steps: list[int] = []
    generate = trainer._generate_and_score_completions

    def counted(inputs: Any) -> Any:
        steps.append(trainer.state.global_step)
        return generate(inputs)

    trainer._generate_and_score_completions = counted  # type: ignore[method-assign]
    return steps


def test_completions_of_the_old_policy_are_dropped(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(max_steps=4, steps_per_generation=4)
    plain = count_generations(trainer)
    trainer.train()
    assert plain == [0]

    trainer = make_trainer(max_steps=4, steps_per_generation=4, name="forgetful")
    steps = count_generations(trainer)
    trainer.add_callback(Forget(trainer, after_step=2))
    trainer.train()
    assert steps == [0, 2]


def test_metrics_reach_the_log(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(max_steps=1)
    trl_internals.add_metrics(trainer, {"next/update_ratio": 0.25})
    trainer.train()
    assert trainer.state.log_history[0]["next/update_ratio"] == 0.25


def test_no_name_is_missing(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    assert trl_internals.missing_names(tiny_rloo_trainer(tmp_path / "rloo", max_steps=1)) == []
    trainer = make_trainer(max_steps=1)
    assert trl_internals.missing_names(trainer) == []
    del trainer._buffered_inputs
    assert trl_internals.missing_names(trainer) == ["_buffered_inputs"]


@pytest.mark.parametrize("trainer", [GRPOTrainer, RLOOTrainer])
def test_vllm_loads_weights_when_its_step_differs(trainer: type) -> None:
    """There is no vLLM on a CPU: read in TRL's source what a run with it would do."""
    source = inspect.getsource(trainer)
    assert "if self.state.global_step != self._last_loaded_step:" in source
    assert "self._last_loaded_step = -1" in source
