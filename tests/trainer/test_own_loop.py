"""The loop that docs/trainers.md shows, with a model: its jumps are not taken for training."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.server import EmbeddedServer
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from nextrapolate.methods import make_method

GUIDE = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text()
(LOOP,) = re.findall(r"^## A loop of your own\n.*?^```python\n(.*?)^```", GUIDE, flags=re.M | re.S)


def norm(parts: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(part.detach().norm()) ** 2 for part in parts))


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT asks transformers by an old name
def test_the_loop_jumps_and_records_it(
    embedded_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEXTRAPOLATE_URL", embedded_server.url)
    monkeypatch.setenv("NEXTRAPOLATE_API_KEY", embedded_server.api_key)
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=24,
        intermediate_size=40,
        vocab_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = get_peft_model(
        Qwen2ForCausalLM(config), LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    names: dict[str, Any] = {"model": model}
    exec(LOOP, names)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    pace = {name: torch.randn_like(weight) for name, weight in weights.items()}

    def trained_until(step: int) -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.add_(pace[name], alpha=0.01)
        names["collect"](step)

    method = make_method("weight-extrapolation", horizon_steps=20)
    for step in range(10, 90, 10):
        trained_until(step)
        before = {name: weight.clone() for name, weight in weights.items()}
        if step in (60, 80):
            names["jump"](step, method)
            jumped = norm(weight - before[name] for name, weight in weights.items())
            trained = 0.01 * norm(pace.values())
            assert 1 < jumped / trained < 3, "20 steps are twice what 10 are"
    series = names["client"].get_series(names["series"])
    assert [made.step for made in series.jumps] == [60, 80]
    assert [info.step for info in series.checkpoints] == list(range(10, 90, 10))
    names["client"].close()
