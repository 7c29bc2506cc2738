"""The tensors of adapter_model.safetensors: a factor B and a factor A for each module, as PEFT names them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nextrapolate_store.errors import BrokenAdapter, UnsupportedAdapter

SAVE_AGAIN = "save the adapter again with PEFT's save_pretrained (safe_serialization=True)"

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")
_DTYPES = frozenset({"F64", "F32", "BF16", "F16"})

# part of a tensor's name -> the feature it gives away, why B A is not its delta, and what to do
_REFUSED: Mapping[str, tuple[str, str, str]] = {
    "lora_magnitude_vector": (
        "DoRA",
        "its magnitude vector changes the weight beyond B A",
        "train with use_dora=False",
    ),
    "lora_embedding_": (
        "LoRA on an embedding",
        "its factors are stored transposed",
        "target linear layers only",
    ),
    "lora_B.bias": (
        "lora_bias",
        "a bias beside B is a change that B A does not hold",
        "train with lora_bias=False",
    ),
}


@dataclass(frozen=True)
class Tensor:
    """One entry of the header; `begin` and `end` are offsets in bytes after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Check that there are whole pairs of factors, and none of a LoRA that is more than these.

    Raises:
        BrokenAdapter: there are none, or one that makes no product with its partner; the field is named.
        UnsupportedAdapter: one shows a feature whose delta is not B A.
    """
    factors = {name: found for name in tensors if (found := _FACTOR.fullmatch(name))}
    for name in sorted(tensors.keys() - factors.keys()):
        _check_other(name)
    if not factors:
        raise broken(
            "header", f"it contains no lora_A and no lora_B, so it is not a LoRA adapter; {SAVE_AGAIN}"
        )
    for name, found in factors.items():
        other = f"{found['module']}.lora_{'B' if found['factor'] == 'A' else 'A'}.weight"
        if other not in tensors:
            raise broken(name, f"{name} has no partner {other}; {SAVE_AGAIN}")
        _check_factor(tensors[name])
        if found["factor"] == "A":
            _check_ranks(A=tensors[name], B=tensors[other])


def _check_other(name: str) -> None:
    """Refuse what belongs to the LoRA and is no factor; modules that were trained as a whole do not."""
    for part, (feature, why, advice) in _REFUSED.items():
        if part in name:
            raise UnsupportedAdapter(
                f"{feature} ({name}) cannot be extrapolated: {why}; {advice}", field=name
            )
    if "lora_" in name:
        raise broken(
            name, f"{name} is not named as PEFT saves it (lora_A.weight, lora_B.weight); {SAVE_AGAIN}"
        )


def _check_factor(tensor: Tensor) -> None:
    name, shape = tensor.name, list(tensor.shape)
    if 0 in shape:
        raise broken(f"{name}.shape", f"{name} is empty; gather sharded weights before they are saved")
    if len(shape) != 2:
        raise UnsupportedAdapter(
            f"LoRA on a convolution ({name} {shape}) cannot be extrapolated: its factors are not matrices; "
            "target linear layers only",
            field=f"{name}.shape",
        )
    if tensor.dtype not in _DTYPES:
        raise broken(f"{name}.dtype", f"{name} of dtype {tensor.dtype} cannot be read; save it as float32")


def _check_ranks(*, A: Tensor, B: Tensor) -> None:
    if A.shape[0] != B.shape[-1]:
        raise broken(
            f"{A.name}.shape",
            f"{A.name} {list(A.shape)} and {B.name} {list(B.shape)} do not share a rank; {SAVE_AGAIN}",
        )


def broken(field: str, what: str) -> BrokenAdapter:
    """Make the error for a file that is not what its name says."""
    return BrokenAdapter(f"adapter_model.safetensors: {what}", field=field)
