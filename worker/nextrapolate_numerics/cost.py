"""What an extraction had to do, told from shapes."""

from dataclasses import dataclass

from nextrapolate_numerics.extraction import Extraction
from nextrapolate_numerics.series import DTYPES


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
        sum(max(DTYPES[dtype].itemsize for dtype in layout.dtypes) for layout in layouts)
        * sum(sizes.values()),
        sum(2 * pairs * layouts[0].modules[name].r * sizes[name] for name in extraction.moved),
    )
