"""The Gram matrix of a module's trajectory: all that methods which combine checkpoints need to know of it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from nextrapolate_numerics.trajectory import ModuleFactors


def gram(factors: ModuleFactors) -> Tensor:
    """G[k, l] = <dW_k, dW_l> over the points, (p, p) float64 on the CPU.

    <dW_k, dW_l> = s^2 tr((B_k^T B_l)(A_l A_k^T)), row by row: O(p^2 r^2 (m + n)), and O(p r^2) memory beside
    the factors.
    """
    p, m, r = factors.B.shape
    B = factors.B.double()
    A = factors.A.double()
    all_B = B.permute(1, 0, 2).reshape(m, p * r)
    all_A = A.reshape(p * r, -1)
    rows = torch.zeros(p, p, dtype=torch.float64)
    for k in range(p):
        later = slice(k * r, None)
        products = (B[k].mT @ all_B[:, later]) * (A[k] @ all_A[later].mT)
        rows[k, k:] = products.reshape(r, p - k, r).sum(dim=(0, 2)).cpu()
    return factors.scaling**2 * (rows + rows.triu(1).mT)


def summed(grams: Mapping[str, Tensor]) -> Tensor:
    """The Gram matrix of all modules together, (p, p): that of their deltas as one vector."""
    return torch.stack([grams[name] for name in sorted(grams)]).sum(dim=0)
