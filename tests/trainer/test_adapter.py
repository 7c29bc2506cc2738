import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nextrapolate_trainer.adapter import check, copied, distance, modules, regauged_modules, update_ratio
from nextrapolate_trainer.errors import InvalidAdapterError

RANK = 4
SHAPES = {"layers.0.q_proj": (12, 10), "layers.1.down_proj": (9, 16)}

Adapter = dict[str, Tensor]


def random_adapter(seed: int) -> Adapter:
    """A trained adapter with `RANK` factors for each of `SHAPES`."""
    generator = torch.Generator().manual_seed(seed)
    adapter = {}
    for module, (m, n) in SHAPES.items():
        adapter[f"{module}.lora_A.weight"] = torch.randn(RANK, n, generator=generator)
        adapter[f"{module}.lora_B.weight"] = torch.randn(m, RANK, generator=generator)
    return adapter


def dense(adapter: Adapter, module: str) -> Tensor:
    """The module's delta without scaling, (m, n) float64."""
    return adapter[f"{module}.lora_B.weight"].double() @ adapter[f"{module}.lora_A.weight"].double()


def refitted(before: Adapter, extrapolated: Adapter) -> Adapter:
    """`extrapolated` in the gauge of `before`, by pseudo-inverses: A' is A projected on the new row space."""
    adapter = {}
    for module in SHAPES:
        target, A = dense(extrapolated, module), before[f"{module}.lora_A.weight"].double()
        A_new = A @ torch.linalg.pinv(target) @ target
        adapter[f"{module}.lora_A.weight"] = A_new.float()
        adapter[f"{module}.lora_B.weight"] = (target @ torch.linalg.pinv(A_new)).float()
    return adapter


def balanced(adapter: Adapter) -> Adapter:
    """The same deltas, as factors U sqrt(S) and sqrt(S) V^T."""
    result = {}
    for module in SHAPES:
        U, S, Vh = torch.linalg.svd(dense(adapter, module), full_matrices=False)
        root = S[:RANK].sqrt()
        result[f"{module}.lora_B.weight"] = (U[:, :RANK] * root).float()
        result[f"{module}.lora_A.weight"] = (root[:, None] * Vh[:RANK]).float()
    return result


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(0.01, 10))
def test_update_ratio_is_that_of_the_dense_deltas(seed: int, size: float) -> None:
    before, other = random_adapter(seed), random_adapter(seed + 1)
    after = {name: tensor + size * other[name] for name, tensor in before.items()}
    update = sum((dense(after, m) - dense(before, m)).square().sum().item() for m in SHAPES)
    drift = sum(dense(before, m).square().sum().item() for m in SHAPES)
    assert update_ratio(before, after) == pytest.approx(math.sqrt(update / drift), rel=1e-6)


def test_update_ratio_is_measured_from_the_adapter_that_training_began_with() -> None:
    start, moved, other = (random_adapter(seed) for seed in (0, 1, 2))
    before = {name: tensor + 1e-3 * moved[name] for name, tensor in start.items()}
    after = {name: tensor + 1e-4 * other[name] for name, tensor in before.items()}
    update = sum((dense(after, m) - dense(before, m)).square().sum().item() for m in SHAPES)
    drift = sum((dense(before, m) - dense(start, m)).square().sum().item() for m in SHAPES)
    assert update_ratio(before, after, start) == pytest.approx(math.sqrt(update / drift), rel=1e-6)
    assert update_ratio(start, after, start) == 0.0


def test_update_ratio_of_a_run_that_never_moved_is_zero() -> None:
    still = {name: torch.zeros_like(tensor) for name, tensor in random_adapter(0).items()}
    assert update_ratio(still, random_adapter(1)) == 0.0
    assert update_ratio(random_adapter(1), random_adapter(1)) == pytest.approx(0.0, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000))
def test_a_refit_in_the_run_s_gauge_is_recognised(seed: int) -> None:
    before, after = random_adapter(seed), refitted(random_adapter(seed), random_adapter(seed + 1))
    assert regauged_modules(before, after) == frozenset()
    assert regauged_modules(before, before) == frozenset()


def test_another_gauge_is_recognised_module_by_module() -> None:
    before = random_adapter(0)
    assert regauged_modules(before, balanced(before)) == frozenset(SHAPES)
    first = next(iter(SHAPES))
    mixed = before | {name: tensor for name, tensor in balanced(before).items() if name.startswith(first)}
    assert regauged_modules(before, mixed) == {first}


def test_check_names_what_is_wrong() -> None:
    own = random_adapter(0)
    name = "layers.0.q_proj.lora_A.weight"
    with pytest.raises(InvalidAdapterError, match=rf"missing, the first is {name}"):
        check(own, {k: v for k, v in own.items() if k != name})
    with pytest.raises(InvalidAdapterError, match="unknown to the run, the first is lm_head"):
        check(own, own | {"lm_head.lora_A.weight": own[name]})
    with pytest.raises(InvalidAdapterError, match=rf"{name} has shape \(5, 10\), the run's has \(4, 10\)"):
        check(own, own | {name: torch.ones(5, 10)})
    with pytest.raises(InvalidAdapterError, match=rf"{name} holds values that are not finite"):
        check(own, own | {name: own[name] / 0})
    check(own, random_adapter(1))


def test_a_copy_is_out_of_reach_of_training() -> None:
    weights = random_adapter(0)
    live = {name: tensor.to(torch.bfloat16).requires_grad_() for name, tensor in weights.items()}
    kept = copied(live)
    before = {name: tensor.clone() for name, tensor in kept.items()}
    with torch.no_grad():
        for tensor in live.values():
            tensor += 1
    assert all(tensor.dtype == torch.float32 and not tensor.requires_grad for tensor in kept.values())
    assert distance(kept, before) == 0.0
    assert modules(kept) == list(SHAPES)
