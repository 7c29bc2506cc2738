"""Inner products of one side of a module at all points, as a CPU makes them."""

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.gram import Pairs
from nextrapolate_numerics.extraction.side import Side


def multiply(side: Side, pairs: Pairs, products: Tensor, total: Tensor) -> None:
    """A tile at a time, each pair in one order; its mirror, where it is kept, is copied.

    Args:
        side: B or A of one module.
        pairs: of points.
        products: (w, r, r) zeros, to which the products are added.
        total: (p, r) zeros, to which the sums over d are added; or (0, r).
    """
    sizes = [end - begin for _, begin, end in pairs.runs]
    mirrored = [end - begin for apart, begin, end in pairs.runs if apart and pairs.mirrored]
    runs = torch.split(products, [*sizes, *mirrored])
    runs, mirrors = runs[: len(sizes)], runs[len(sizes) :]
    tile = side.tile()
    factors = [(tile[begin + apart : end + apart], tile[begin:end].mT) for apart, begin, end in pairs.runs]
    for _ in side.widened(tile):
        if len(total):
            total += tile.sum(dim=-1)
        for run, (one, other) in zip(runs, factors, strict=True):
            torch.baddbmm(run, one, other, out=run)
    for mirror, run in zip(mirrors, runs[len(runs) - len(mirrors) :], strict=True):
        mirror.copy_(run.mT)
