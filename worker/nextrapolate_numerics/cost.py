"""What an extraction had to do, told from shapes."""

from dataclasses import dataclass

from nextrapolate_numerics.extraction import Extraction
from nextrapolate_numerics.series import AdapterLayout


@dataclass(frozen=True)
class Cost:
    """Work that is counted, not measured.

    Attributes:
        bytes_read: of the factors in the files.
        flops: floating-point operations of the products of factors (gram.py), which are most of an
            extraction's; each pair of points is counted once.
    """

    bytes_read: int
    flops: int


def extraction_cost(extraction: Extraction) -> Cost:
    """Of an extraction with Gram matrices: one read of all points, and the product of each with each."""
    layouts = extraction.trajectory.layouts
    points = len(layouts)
    sizes = {name: keys.r * (keys.m + keys.n) for name, keys in layouts[0].modules.items()}
    pairs = points * (points + 1) // 2
    return Cost(
        sum(map(_factor_bytes, layouts)),
        sum(2 * pairs * layouts[0].modules[name].r * sizes[name] for name in extraction.moved),
    )


def _factor_bytes(layout: AdapterLayout) -> int:
    """Of one file's factors, each of which may have a dtype of its own."""
    stored = [layout.file.entries[key] for keys in layout.modules.values() for key in (keys.B, keys.A)]
    return sum(entry.end - entry.begin for entry in stored)
