"""A LoRA adapter as the plugin handles it, and what has to hold for one that came back.

Notation: B (m, r), A (r, n) are a module's factors, B' and A' those that came back.
"""

import math
from collections.abc import Mapping
from hashlib import sha256

import torch
from safetensors.torch import save
from torch import Tensor

from nextrapolate_trainer.errors import InvalidAdapterError

Adapter = Mapping[str, Tensor]
"""Tensors by the names PEFT saves them under, `<module>.lora_A.weight` and `<module>.lora_B.weight`."""

_A, _B = ".lora_A.weight", ".lora_B.weight"

GAUGE_TOLERANCE = 1e-3
"""Of |A' A'^T|: far above the rounding of float32 factors, far below any other choice of factors."""


def copied(adapter: Adapter) -> dict[str, Tensor]:
    """Return a copy of the adapter on the CPU, contiguous, in float32: later training does not reach it."""
    return {
        name: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
        for name, tensor in adapter.items()
    }


def fingerprint(adapter: Adapter) -> str:
    """Return the sha256 of the file that a copied adapter is posted as: the same for the same values."""
    return sha256(save(dict(adapter))).hexdigest()


def distance(one: Adapter, other: Adapter) -> float:
    """Return the Euclidean distance of two adapters, factor by factor."""
    return math.sqrt(sum((one[name] - other[name]).double().square().sum().item() for name in one))


def check(before: Adapter, after: Adapter) -> None:
    """Check that `after` can take the place of `before`: the same tensors, all of them finite.

    Raises:
        InvalidAdapterError: it cannot; the first wrong tensor is named.
    """
    if missing := sorted(before.keys() - after.keys()):
        raise InvalidAdapterError(f"{len(missing)} tensors of the run are missing, the first is {missing[0]}")
    if unexpected := sorted(after.keys() - before.keys()):
        raise InvalidAdapterError(
            f"{len(unexpected)} tensors are unknown to the run, the first is {unexpected[0]}"
        )
    for name, tensor in after.items():
        if tensor.shape != before[name].shape:
            raise InvalidAdapterError(
                f"{name} has shape {tuple(tensor.shape)}, the run's has {tuple(before[name].shape)}"
            )
        if not tensor.isfinite().all():
            raise InvalidAdapterError(f"{name} holds values that are not finite")


def was_trained(adapter: Adapter) -> bool:
    """Return whether the adapter changes the base model: a new one has B = 0."""
    return any(tensor.any() for name, tensor in adapter.items() if name.endswith(_B))


def update_ratio(before: Adapter, after: Adapter, start: Adapter | None = None) -> float:
    """Return |B'A' - BA| / |BA - B0 A0| over all modules, Frobenius, from the factors alone; no scalings.

    Args:
        before: the run's own adapter.
        after: the one that came back.
        start: the one that training began with, B0 and A0; None is B0 = 0.
    """
    update = drift = 0.0
    for module in modules(before):
        own, new = _factors(before, module), _factors(after, module)
        update += _square_distance(own, new)
        drift += _square_distance(own, _factors(start, module)) if start else _inner(own, own)
    return math.sqrt(update / drift) if drift else 0.0


def regauged_modules(before: Adapter, after: Adapter) -> frozenset[str]:
    """Return the modules whose factors came back in another gauge than the run's.

    BA = (B R^-1)(R A) for any R, and Adam sees the factors. In the run's own gauge A' is the projection of A
    on the new row space, so that A A'^T = A' A'^T. Where that does not hold, Adam's moments do not fit.
    """
    regauged = set()
    for module in modules(before):
        (_, own), (_, new) = _factors(before, module), _factors(after, module)
        square = new @ new.T
        if torch.linalg.norm(own @ new.T - square) > GAUGE_TOLERANCE * torch.linalg.norm(square):
            regauged.add(module)
    return frozenset(regauged)


def modules(adapter: Adapter) -> list[str]:
    """Return the names of the modules that have LoRA factors."""
    return [name.removesuffix(_A) for name in adapter if name.endswith(_A)]


def _factors(adapter: Adapter, module: str) -> tuple[Tensor, Tensor]:
    return adapter[module + _B].double(), adapter[module + _A].double()


def _square_distance(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    # Differences of squares of nearly equal matrices can round below zero.
    return max(0.0, _inner(one, one) - 2 * _inner(one, other) + _inner(other, other))


def _inner(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Return <B1 A1, B2 A2> = tr((B1^T B2)(A2 A1^T)); no (m, n) matrix appears."""
    return ((one[0].T @ other[0]) * (one[1] @ other[1].T)).sum().item()
