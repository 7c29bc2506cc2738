"""Reads the LoRA adapter out of a PEFT model, and writes one into it, strictly."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from nextrapolate.schemas import ADAPTER_CONFIG
from nextrapolate_trainer import sharded, zero
from nextrapolate_trainer.adapter import Adapter
from nextrapolate_trainer.errors import SwapError


def lora_parameters(model: PeftModel) -> dict[str, Parameter]:
    """Return the active adapter's parameters, by the names PEFT saves them under.

    Under FSDP2 the parts that this process holds: what a forward pass has gathered is let go.
    """
    # "auto", PEFT's default, asks the Hub whether the vocabulary has grown.
    return dict(
        get_peft_model_state_dict(
            model,
            model.state_dict(keep_vars=True),
            adapter_name=model.active_adapter,
            save_embedding_layers=False,
        )
    )


def read_adapter(model: PeftModel) -> dict[str, Tensor]:
    """Return the active adapter's tensors, whole, by the names PEFT saves them under.

    They are the model's own unless it is sharded; then every process has to call this.
    """
    return {
        name: _way_to(parameter).whole(parameter).detach()
        for name, parameter in lora_parameters(model).items()
    }


def write_adapter(model: PeftModel, adapter: Adapter) -> None:
    """Write `adapter` into the active adapter, in place, and read it back.

    PEFT's own way in is silent about tensors that found no place, and knows no shards.
    Where the model is sharded, every process has to call this, with the same adapter.

    Raises:
        SwapError: a tensor has no place or another shape, none came for one of the model's, or one reads back
            otherwise; the model may be half written.
    """
    parameters = lora_parameters(model)
    if unexpected := sorted(adapter.keys() - parameters.keys()):
        raise SwapError(f"the model has no place for {unexpected[0]}")
    if missing := sorted(parameters.keys() - adapter.keys()):
        raise SwapError(f"the model's {missing[0]} is not in the adapter")
    for name, parameter in parameters.items():
        try:
            _way_to(parameter).set_whole(parameter, adapter[name])
        except ValueError as error:
            raise SwapError(f"{name}: {error}") from error
    for name, tensor in read_adapter(model).items():
        if not torch.equal(tensor, adapter[name].to(tensor.device, tensor.dtype)):
            raise SwapError(f"{name} reads back with different values from those that were written")


@contextmanager
def restoring(model: PeftModel, before: Adapter) -> Iterator[None]:
    """Put `before` back into the model where what happens inside fails, or is interrupted."""
    try:
        yield
    except BaseException:
        write_adapter(model, before)
        raise


def clear_moments(model: PeftModel, optimizer: Optimizer, modules: Iterable[str]) -> None:
    """Have the optimizer forget what it knows of the active adapter's parameters of these modules."""
    prefixes = tuple(f"{module}.lora_" for module in modules)
    for name, parameter in lora_parameters(model).items():
        if not name.startswith(prefixes):
            continue
        if zero.is_partitioned(parameter):
            zero.clear_moments(parameter)
        else:
            optimizer.state.pop(parameter, None)


def adapter_config(model: PeftModel) -> dict[str, Any]:
    """Return the content of the adapter_config.json that PEFT writes for the active adapter."""
    with tempfile.TemporaryDirectory(prefix="nextrapolate-") as folder:
        model.peft_config[model.active_adapter].save_pretrained(folder)
        config: dict[str, Any] = json.loads((Path(folder) / ADAPTER_CONFIG).read_text())
    # A saved adapter is for inference: PeftModel.save_pretrained writes it so.
    return config | {"inference_mode": True}


def _way_to(parameter: Parameter) -> ModuleType:
    """Return the module whose `whole` and `set_whole` reach the parameter."""
    return zero if zero.is_partitioned(parameter) else sharded
