"""Tensors on their way from a GPU."""

import torch
from torch import Tensor


def fetched(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, in memory that the system may page.

    From a GPU by way of pinned memory, which is used again: it writes there some times as fast, and several
    threads fill what is new to the process.
    """
    if tensor.device.type == "cpu":
        return tensor
    pinned = tensor.to("cpu", non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return pinned.clone()
