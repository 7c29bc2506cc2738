"""Whole tensors of sharded ones, and back: under FSDP2 a parameter is a DTensor, each process holds a part.

Every process has to make the same calls in the same order: they are collectives. A tensor that is not sharded
is its own whole.
"""

from typing import cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor, in its own dtype: one that is not sharded itself, a sharded one gathered.

    Gathered on the device of its mesh: parameters that were offloaded lie where no process group reaches.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    on_mesh = cast(DTensor, tensor.detach().to(tensor.device_mesh.device_type))
    return on_mesh.full_tensor()


@torch.no_grad()
def set_whole(tensor: Tensor, value: Tensor) -> None:
    """Write `value`, all of it in each process, into `tensor` in place; each process takes its part.

    Raises:
        ValueError: it has another shape than the whole tensor.
    """
    if value.shape != tensor.shape:
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} cannot take {tuple(value.shape)}")
    if isinstance(tensor, DTensor):
        parts = distribute_tensor(value.detach(), tensor.device_mesh, tensor.placements)
        tensor, value = tensor.to_local(), parts.to_local()
    tensor.copy_(value)
