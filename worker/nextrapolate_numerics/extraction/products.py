"""Inner products of one side of a module at all points, as a CPU makes them."""

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.gram import Pairs
from nextrapolate_numerics.extraction.side import Side

_BLOCK = 48  # rows that are multiplied with all later ones at once


def multiply(side: Side, pairs: Pairs, products: Tensor, total: Tensor) -> None:
    """A tile at a time, each pair in one order; its mirror, where it is kept, is copied.

    Args:
        side: B or A of one module.
        pairs: of points.
        products: (w, r, r) zeros, where the products go.
        total: (p, r) zeros, where the sums over d go; or (0, r).
    """
    if pairs.every:
        _multiply_all(side, pairs, products, total)
    else:
        _multiply_runs(side, pairs, products, total)


def _multiply_all(side: Side, pairs: Pairs, products: Tensor, total: Tensor) -> None:
    """All points with all, as rows of one matrix: products of two points each take up to twice as long."""
    some, which = side.distinct()
    tile = some.tile()
    rows = tile.flatten(0, 1)
    of_rows = tile.new_zeros(len(rows), len(rows))
    begins = range(0, len(rows), _BLOCK)
    blocks = [(of_rows[at:, at : at + _BLOCK], rows[at:], rows[at : at + _BLOCK].mT) for at in begins]
    sums = tile.new_zeros(len(rows) if len(total) else 0)
    for _ in some.widened(tile):
        if len(total):
            sums += rows.sum(dim=-1)
        for block, one, other in blocks:
            torch.addmm(block, one, other, out=block)
    for at, (block, _, _) in zip(begins, blocks, strict=True):
        of_rows[at : at + _BLOCK, at + _BLOCK :] = block[_BLOCK:].mT
        square = block[:_BLOCK]
        square.copy_(square.tril() + square.tril(-1).mT)
    by_points = of_rows.view(len(some), some.rank, len(some), some.rank).transpose(1, 2)
    for places, own in zip(pairs.where, which, strict=True):
        products[places] = by_points[own, which]
    if len(total):
        total.copy_(sums.view(len(some), some.rank)[which])


def _multiply_runs(side: Side, pairs: Pairs, products: Tensor, total: Tensor) -> None:
    """Some pairs, those equally far apart as one batch."""
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
