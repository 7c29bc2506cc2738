"""Tensors that are not sharded; those that are have their test in a run of two processes."""

import pytest
import torch

from nextrapolate_trainer.sharded import set_whole, whole


def test_a_tensor_that_is_not_sharded_is_its_own_whole() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    assert whole(parameter) is parameter
    set_whole(parameter, torch.ones(2, 3, dtype=torch.float64))
    assert torch.equal(parameter.detach(), torch.ones(2, 3))
    assert parameter.requires_grad


def test_nothing_is_broadcast() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\) cannot take \(1, 3\)"):
        set_whole(torch.zeros(2, 3), torch.ones(1, 3))
