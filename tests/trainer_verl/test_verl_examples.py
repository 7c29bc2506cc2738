"""The example scripts as people start them, up to where verl itself would be: what they tell it is true."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.server import EmbeddedServer
from fixtures.verl_run import MakeConfig, MakeTrainer, adapters, make_workers, same
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from safetensors.torch import load_file
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from nextrapolate_trainer.schedule import Schedule
from nextrapolate_trainer.verl_settings import VerlSettings, check_served

EXAMPLES = Path(__file__).parents[2] / "examples" / "verl"
STEPS = 4


@pytest.fixture
def overrides(tmp_path: Path) -> Path:
    """Has verl's command write its arguments into this file, instead of training; other programs are run."""
    written = tmp_path / "overrides"
    stand_in = tmp_path / "bin" / "python3"
    stand_in.parent.mkdir()
    stand_in.write_text(
        "#!/usr/bin/env bash\n"
        'if [ "$2" = verl.trainer.main_ppo ]; then\n'
        f'    shift 2; printf "%s\\n" "$@" > "{written}"\n'
        "else\n"
        f'    exec "{sys.executable}" "$@"\n'
        "fi\n"
    )
    stand_in.chmod(0o755)
    return written


def run(name: str, *arguments: object, overrides: Path, server: EmbeddedServer | None = None) -> list[str]:
    """Run a script, and return what it tells verl."""
    programs = [overrides.parent / "bin", Path(sys.executable).parent, os.environ["PATH"]]
    service = {"NEXTRAPOLATE_URL": server.url, "NEXTRAPOLATE_API_KEY": server.api_key} if server else {}
    finished = subprocess.run(
        [EXAMPLES / name, *map(str, arguments)],
        env=os.environ | {"PATH": os.pathsep.join(map(str, programs))} | service,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return overrides.read_text().splitlines()


def composed(overrides: list[str]) -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=overrides)


def test_the_example_is_a_run_that_verl_takes_and_that_is_served(overrides: Path) -> None:
    told = run("grpo_lora.sh", "trainer.total_training_steps=120", overrides=overrides)
    # Of vLLM verl asks the largest rank that it takes, and there is none here.
    without_vllm = composed([*told, "actor_rollout_ref.rollout.name=sglang"])
    critic, reference = need_critic(without_vllm), need_reference_policy(without_vllm)
    validate_config(config=without_vllm, use_critic=critic, use_reference_policy=reference)
    config = composed(told)
    check_served(config)
    settings = VerlSettings.of(config)
    cycle = Schedule(collect_every=10, jump_at=40, jump_every=20)
    assert settings.schedule(config.trainer.save_freq) == cycle
    assert settings.horizon_steps == 100
    assert config.trainer.total_training_steps == 120
    assert config.trainer.checkpoint_callback_class == "nextrapolate_trainer.verl.NExtCheckpointCallback"


@pytest.mark.integration
def test_a_second_run_starts_from_what_the_first_s_checkpoints_lead_to(
    make_trainer: MakeTrainer,
    make_config: MakeConfig,
    overrides: Path,
    server: EmbeddedServer,
    tmp_path: Path,
) -> None:
    first = tmp_path / "first"
    make_trainer(first, "trainer.checkpoint_callback_class=null").train(until=STEPS)
    told = run("restart_from_adapter.sh", first, STEPS, 3, overrides=overrides, server=server)
    config = composed(told)
    assert config.trainer.resume_mode == "disable"
    assert config.trainer.default_local_dir == f"{first}-from-7"
    adapter = config.actor_rollout_ref.model.lora_adapter_path
    second = make_workers(make_config(f"actor_rollout_ref.model.lora_adapter_path={adapter}"))
    extrapolated = load_file(Path(adapter) / "adapter_model.safetensors")
    assert [same(own, extrapolated) for own in adapters(second)] == [True, True]
