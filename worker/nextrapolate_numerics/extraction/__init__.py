"""One pass over a run's files: from factors to small matrices that tell everything a method asks for.

gram.py             inner products of modules' factors, from which all else is told
deltas.py           which points a delta is made of
groups.py           modules that are worked on together
side.py             one side of a module at all points, a tile at a time
products.py         inner products of it, as a CPU makes them
tiles.py            as a CPU does: one module after the other
blocks.py           as a GPU does: those of one shape at once
sending.py          how groups get to a GPU
before_jumps.py     what training had done until a run's last jump
decompositions.py   leading triples and spectra of deltas
triples.py          those that NExt sees
parts.py            the global delta, part by part
module_geometry.py  how a module moved, for readers
breaks.py           where a series is not the way of one run
windows.py          which points are held multiplied at a time
look.py             what a group of modules tells
gather.py           the pass itself
extraction.py       what was learnt: the carrier that methods start from

Nothing here knows a method: they ask by the evidence that they need.
"""

from nextrapolate_numerics.extraction.breaks import Break, Rest, breaks, rests
from nextrapolate_numerics.extraction.deltas import points_of
from nextrapolate_numerics.extraction.extraction import Evidence, Extraction
from nextrapolate_numerics.extraction.gather import gather
from nextrapolate_numerics.extraction.gram import squared_norm, summed
from nextrapolate_numerics.extraction.module_geometry import Linearity, ModuleGeometry
from nextrapolate_numerics.extraction.parts import MAX_TRIPLES, begins, sum_of_parts
from nextrapolate_numerics.extraction.triples import ModuleTriples, Seen

__all__ = [
    "MAX_TRIPLES",
    "Break",
    "Evidence",
    "Extraction",
    "Linearity",
    "ModuleGeometry",
    "ModuleTriples",
    "Rest",
    "Seen",
    "begins",
    "breaks",
    "gather",
    "points_of",
    "rests",
    "squared_norm",
    "sum_of_parts",
    "summed",
]
