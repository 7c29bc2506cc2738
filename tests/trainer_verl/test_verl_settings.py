"""What a verl configuration may say, and which runs are refused before they cost anything."""

import logging
import re

import pytest
from fixtures.verl_run import MakeConfig
from hydra import compose, initialize_config_module

from nextrapolate.errors import ParameterError
from nextrapolate.schemas import Gate
from nextrapolate_trainer.errors import UnsupportedRunError
from nextrapolate_trainer.schedule import Schedule
from nextrapolate_trainer.verl import NExtCheckpointCallback
from nextrapolate_trainer.verl_settings import VerlSettings, check_served

ASYNC = "trainer.v1.trainer_mode=separate_async"


def test_settings_come_from_the_command_line(make_config: MakeConfig) -> None:
    config = make_config(
        "+nextrapolate.jump_at=100",
        "+nextrapolate.method=weight-extrapolation",
        "+nextrapolate.alpha=0.5",
        "+nextrapolate.gate.min_energy_ratio=0.3",
        "+nextrapolate.name=${trainer.project_name}-again",
    )
    settings = VerlSettings.of(config)
    assert settings.schedule(save_freq=10) == Schedule(collect_every=10, jump_at=100)
    assert settings.make_method().alpha == 0.5
    assert settings.gate == Gate(min_energy_ratio=0.3)
    assert settings.name == "verl_examples-again"


def test_without_settings_there_are_defaults(make_config: MakeConfig) -> None:
    assert VerlSettings.of(make_config()) == VerlSettings()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("+nextrapolate.jump_on=100", "nextrapolate.jump_on: .*; settings are jump_at, jump_every"),
        ("+nextrapolate.api_key=nx_1_2", "nextrapolate.api_key"),
        ("+nextrapolate.timeout=0", "nextrapolate.timeout: .*greater than 0"),
        ("+nextrapolate.optimizer=forget", "nextrapolate.optimizer: .*'keep' or 'reset'"),
    ],
)
def test_a_wrong_setting_is_named(override: str, says: str, make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=says):
        VerlSettings.of(make_config(override))


def test_jumps_fall_on_steps_at_which_verl_saves() -> None:
    with pytest.raises(ValueError, match=r"jump_at is 25, which is not a multiple of collect_every \(10\)"):
        VerlSettings(jump_at=25).schedule(save_freq=10)
    with pytest.raises(
        ValueError, match=r"collect_every is 15, which is not a multiple of trainer.save_freq"
    ):
        VerlSettings(jump_at=30, collect_every=15).schedule(save_freq=10)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("actor_rollout_ref.actor.strategy=fsdp",), "strategy=fsdp cannot be served.*train with fsdp2"),
        (("actor_rollout_ref.model.lora_rank=0",), "set actor_rollout_ref.model.lora_rank"),
        (("actor_rollout_ref.model.lora_rank=0", "actor_rollout_ref.model.lora_adapter_path=/a"), "ignores"),
        (("+actor_rollout_ref.model.target_parameters=[experts]",), "use target_modules"),
        ((ASYNC,), "set actor_rollout_ref.model.lora.merge=True"),
        (("trainer.save_freq=-1",), "set trainer.save_freq"),
        (("actor_rollout_ref.actor.checkpoint.async_save=True",), "async_save=False"),
    ],
)
def test_runs_that_cannot_be_served_are_refused(
    overrides: tuple[str, ...], says: str, make_config: MakeConfig
) -> None:
    with pytest.raises(UnsupportedRunError, match=says):
        NExtCheckpointCallback(make_config(*overrides))


def test_megatron_is_refused() -> None:
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_megatron_trainer")
    with pytest.raises(UnsupportedRunError, match=re.escape("python -m nextrapolate_trainer.verl_export")):
        check_served(config)


def test_a_merged_adapter_is_sent_in_separate_async(make_config: MakeConfig) -> None:
    check_served(make_config(ASYNC, "actor_rollout_ref.model.lora.merge=True"))


def test_an_adapter_in_bfloat16_is_warned_of(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "nextrapolate"):
        check_served(make_config())
        assert caplog.text == ""
        check_served(make_config("actor_rollout_ref.actor.fsdp_config.model_dtype=bf16"))
    assert "model_dtype=fp32 keeps all of it" in caplog.text


def test_a_wrong_method_ends_the_run_before_it_begins(make_config: MakeConfig) -> None:
    with pytest.raises(ParameterError, match="there is no method 'magic'"):
        NExtCheckpointCallback(make_config("+nextrapolate.method=magic"))
