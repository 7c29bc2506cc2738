"""What a jump changes at once, and what it is worth with the steps that follow it."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf, sqrt
from statistics import mean, pstdev

from benchmarks.rlvr.campaign.compare import Pair, pairs
from benchmarks.rlvr.campaign.plan import LARGE, MEASURE_EVERY, RATE, runs_of
from benchmarks.rlvr.campaign.results import Results, steps_to
from benchmarks.rlvr.campaign.tables.cells import table
from benchmarks.rlvr.campaign.variants import BEST, OFTEN, SHORTER, VARIANTS

_CHANGES = (-inf, -0.1, -0.02, -0.005, 0.005, 0.02, inf)


def worth(results: Results) -> str:
    """Steps of vanilla that a jump and the steps after it are worth, by what it changes at once."""
    rows = []
    for rate in (RATE, *LARGE):
        for way in (BEST, OFTEN, SHORTER):
            found = [jump for pair in pairs(results, runs_of([way], rates=[rate])) for jump in _jumps(pair)]
            cells = [_cell(found, least, most) for least, most in pairwise(_CHANGES)]
            if any(cells):
                rows.append((f"{rate:g}", VARIANTS[way].title, *cells))
    return table(("rate", "run", *(_told(least, most) for least, most in pairwise(_CHANGES))), rows)


def _jumps(pair: Pair) -> Iterator[tuple[float, float]]:
    """What each jump changed, and the vanilla steps between what the run had before it and 20 steps later."""
    own = {row.step: row.accuracy.sampled for row in pair.record.rows}
    for jump in pair.record.jumps:
        if jump.step not in own or jump.step + MEASURE_EVERY not in own:
            continue
        begin, end = (steps_to(pair.rival, own[jump.step + later]) for later in (0, MEASURE_EVERY))
        if begin is not None and end is not None:
            yield jump.accuracy.sampled - own[jump.step], end - begin


def _cell(jumps: Sequence[tuple[float, float]], least: float, most: float) -> str:
    """Mean and standard error, and of how many."""
    found = [steps for change, steps in jumps if least <= change < most]
    if not found:
        return ""
    return f"{mean(found):.0f} ± {pstdev(found) / sqrt(len(found)):.0f} ({len(found)})"


def _told(least: float, most: float) -> str:
    if least == -inf:
        return f"less than {most:+g}"
    return f"{least:+g} or more" if most == inf else f"{least:+g} to {most:+g}"
