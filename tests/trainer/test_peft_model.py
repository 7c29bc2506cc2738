import json
from pathlib import Path
from typing import cast

import pytest
import torch
from fixtures.grpo import MakeTrainer
from peft import PeftModel

from nextrapolate_trainer.adapter import copied, distance, modules
from nextrapolate_trainer.errors import SwapError
from nextrapolate_trainer.peft_model import (
    adapter_config,
    clear_moments,
    lora_parameters,
    read_adapter,
    restoring,
    write_adapter,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture
def model(make_trainer: MakeTrainer) -> PeftModel:
    return cast(PeftModel, make_trainer(max_steps=1).model)


def test_write_and_read_back(model: PeftModel) -> None:
    before = copied(read_adapter(model))
    after = {name: tensor + 1 for name, tensor in before.items()}
    addresses = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    write_adapter(model, after)
    assert distance(copied(read_adapter(model)), after) == 0.0
    assert addresses == {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    assert all(p.requires_grad for name, p in model.named_parameters() if "lora_" in name)


def test_after_a_failed_write_the_run_s_own_adapter_is_restored(model: PeftModel) -> None:
    before = copied(read_adapter(model))
    after = {name: tensor + 1 for name, tensor in before.items()}
    name = next(iter(after))
    with pytest.raises(SwapError, match="is not in the adapter"), restoring(model, before):
        write_adapter(model, {k: v for k, v in after.items() if k != name})
    assert distance(copied(read_adapter(model)), before) == 0.0
    with pytest.raises(SwapError, match="has no place for"), restoring(model, before):
        write_adapter(model, after | {"base_model.model.lm_head.lora_A.weight": torch.ones(4, 16)})
    assert distance(copied(read_adapter(model)), before) == 0.0


def test_whoever_interrupts_finds_the_run_s_own_adapter(model: PeftModel) -> None:
    before = copied(read_adapter(model))
    write_adapter(model, {name: tensor + 1 for name, tensor in before.items()})
    with pytest.raises(KeyboardInterrupt), restoring(model, before):
        raise KeyboardInterrupt
    assert distance(copied(read_adapter(model)), before) == 0.0


def test_moments_of_a_module_are_forgotten(model: PeftModel) -> None:
    parameters = lora_parameters(model)
    optimizer = torch.optim.AdamW(parameters.values())
    for parameter in parameters.values():
        optimizer.state[parameter] = {"exp_avg": torch.ones_like(parameter)}
    first, *others = modules(read_adapter(model))
    clear_moments(model, optimizer, [])
    assert len(optimizer.state) == len(parameters)
    clear_moments(model, optimizer, [first])
    kept = {name for name, parameter in parameters.items() if parameter in optimizer.state}
    assert kept == {f"{module}.lora_{factor}.weight" for module in others for factor in "AB"}


def test_the_config_is_the_one_peft_writes(model: PeftModel, tmp_path: Path) -> None:
    model.save_pretrained(str(tmp_path))
    assert adapter_config(model) == json.loads((tmp_path / "adapter_config.json").read_text())
