"""Reads the LoRA adapter out of a PEFT model, and writes one into it, strictly."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from torch.nn import Parameter

from nextrapolate.schemas import ADAPTER_CONFIG
from nextrapolate_trainer.adapter import Adapter
from nextrapolate_trainer.errors import SwapError


def read_adapter(model: PeftModel) -> dict[str, Tensor]:
    """Return the active adapter's tensors, by the names PEFT saves them under; they are the model's own."""
    # "auto", PEFT's default, asks the Hub whether the vocabulary has grown.
    state = get_peft_model_state_dict(model, adapter_name=model.active_adapter, save_embedding_layers=False)
    return dict(state)


def write_adapter(model: PeftModel, adapter: Adapter) -> None:
    """Write `adapter` into the active adapter, in place, and read it back.

    PEFT loads with strict=False and stays silent about tensors that found no place; this does not.

    Raises:
        SwapError: a tensor found no place, none came for one of the model's, or one reads back otherwise; the
            model may be half written.
    """
    result: Any = set_peft_model_state_dict(model, dict(adapter), adapter_name=model.active_adapter)
    if result.unexpected_keys:
        raise SwapError(f"the model has no place for {result.unexpected_keys[0]}")
    if missing := [name for name in result.missing_keys if "lora_" in name]:
        raise SwapError(f"the model's {missing[0]} is not in the adapter")
    for name, tensor in read_adapter(model).items():
        if not torch.equal(tensor, adapter[name].to(tensor.device, tensor.dtype)):
            raise SwapError(f"{name} reads back with other values than were written")


@contextmanager
def restoring(model: PeftModel, before: Adapter) -> Iterator[None]:
    """Put `before` back into the model where what happens inside fails."""
    try:
        yield
    except Exception:
        write_adapter(model, before)
        raise


def lora_parameters(model: PeftModel, modules: Iterable[str]) -> list[Parameter]:
    """Return the active adapter's parameters of these modules."""
    prefixes = tuple(f"{module}.lora_" for module in modules)
    suffix = f".{model.active_adapter}.weight"
    return [
        parameter
        for name, parameter in model.named_parameters()
        if name.startswith(prefixes) and name.endswith(suffix)
    ]


def adapter_config(model: PeftModel) -> dict[str, Any]:
    """Return the content of the adapter_config.json that PEFT writes for the active adapter."""
    with tempfile.TemporaryDirectory(prefix="nextrapolate-") as folder:
        model.peft_config[model.active_adapter].save_pretrained(folder)
        config: dict[str, Any] = json.loads((Path(folder) / ADAPTER_CONFIG).read_text())
    # A saved adapter is for inference: PeftModel.save_pretrained writes it so.
    return config | {"inference_mode": True}
