"""PEFT as the oracle: adapters that it wrote are read, and what is written it loads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from fixtures.dense import checkpoints
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from nextrapolate_numerics import (
    Extension,
    GateThresholds,
    Method,
    Next,
    NextPaper,
    Trajectory,
    WeightExtrapolation,
    extend,
    extract,
)

# PEFT asks transformers for a property by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CONFIGS: Mapping[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8},
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "orthogonal": {"r": 4, "lora_alpha": 8, "init_lora_weights": "orthogonal"},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"q_proj": 6, r"layers\.1\.mlp\.down_proj": 2},
        "alpha_pattern": {r".*\.0\.self_attn\.q_proj": 5, "down_proj": 3},
    },
}
STEPS = range(10, 60, 10)


def base_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=40,
        vocab_size=16,
    )
    return Qwen2ForCausalLM(config)


def peft_deltas(model: PeftModel) -> dict[str, Tensor]:
    """What PEFT adds to each weight."""
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach().double()
        for name, module in model.named_modules()
        if isinstance(module, Linear)
    }


def write_peft_run(folder: Path, config: dict[str, Any]) -> list[dict[str, Tensor]]:
    """Checkpoints as PEFT saves them, their factors on a noisy walk; returns PEFT's deltas of each."""
    targets = ["q_proj", "v_proj", "down_proj"]
    model = get_peft_model(base_model(), LoraConfig(target_modules=targets, task_type="CAUSAL_LM", **config))
    generator = torch.Generator().manual_seed(1)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    directions = [torch.randn(parameter.shape, generator=generator) for parameter in trained]
    deltas = []
    for step in STEPS:
        with torch.no_grad():
            for parameter, direction in zip(trained, directions, strict=True):
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.05 * direction + 0.02 * noise)
        model.save_pretrained(str(folder / f"checkpoint-{step}"), save_embedding_layers=False)
        deltas.append(peft_deltas(model))
    return deltas


PeftRun = tuple[Path, list[dict[str, Tensor]]]


@pytest.fixture(scope="module", params=CONFIGS)
def peft_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PeftRun:
    """A run of PEFT's with one of the configurations, and PEFT's deltas of its checkpoints."""
    folder = tmp_path_factory.mktemp(request.param)
    return folder, write_peft_run(folder, CONFIGS[request.param])


def test_adapters_that_peft_wrote_are_read(peft_run: PeftRun) -> None:
    run, deltas = peft_run
    trajectory = Trajectory.open(checkpoints(run))
    assert set(trajectory.module_names) == deltas[0].keys()
    for module in trajectory.module_names:
        factors = trajectory.module(module)
        for index, expected in enumerate(deltas):
            actual = factors.scaling * factors.B[index].double() @ factors.A[index].double()
            torch.testing.assert_close(actual, expected[module], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rank", ["same", "grow"])
@pytest.mark.parametrize("method", [WeightExtrapolation(20), Next(), NextPaper(epochs=3, learning_rate=1e-3)])
def test_peft_loads_what_is_written(
    peft_run: PeftRun, rank: Literal["same", "grow"], method: Method, tmp_path: Path
) -> None:
    run, deltas = peft_run
    trajectory = Trajectory.open(checkpoints(run))
    extraction = extract(trajectory, method, 20)
    update = method.fit(extraction, 20)
    out = tmp_path / "out"
    out.mkdir()
    gate = GateThresholds(0.0, -1.0)
    extension = extend(extraction, update, alpha=1.5, gate=gate, backtest=None, rank=rank, folder=out)
    loaded = peft_deltas(PeftModel.from_pretrained(base_model(), out))
    for module, last in deltas[-1].items():
        low_rank = update.delta(module, trajectory)
        wanted = last + 1.5 * low_rank.B @ low_rank.A
        error = float((loaded[module] - wanted).norm() / wanted.norm())
        discarded = discarded_of(extension, module)
        assert error == pytest.approx(discarded**0.5, abs=1e-5)
        if rank == "grow":
            assert error < 1e-5


def discarded_of(extension: Extension, module: str) -> float:
    return next(record.discarded_energy for record in extension.modules if record.name == module)
