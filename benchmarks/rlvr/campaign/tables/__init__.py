"""The tables, in Markdown. What is not finished yet is left out; what was not reached says so.

at_one_rate.py    steps saved at the usual rate, by a larger model too
at_rates.py       at larger rates, and at the best of them
of_savings.py     at the best of them, counted in several ways
at_ends.py        at the best of them, by runs that end with an average
at_falling.py     where the rate falls to 0
with_guard.py     beside vanilla at equal steps
of_jumps.py       one jump by every method, and by alpha
of_worth.py       what jumps change at once, and what they are worth
of_cycles.py      other cycles, and other algorithms
cells.py          what goes into cells
"""

from collections.abc import Callable, Sequence

from benchmarks.rlvr.campaign.results import Results
from benchmarks.rlvr.campaign.sweep import Swept
from benchmarks.rlvr.campaign.tables.at_ends import ended
from benchmarks.rlvr.campaign.tables.at_falling import falling
from benchmarks.rlvr.campaign.tables.at_one_rate import larger, steps
from benchmarks.rlvr.campaign.tables.at_rates import again, averages, best, rates
from benchmarks.rlvr.campaign.tables.of_cycles import algorithms, cycles
from benchmarks.rlvr.campaign.tables.of_jumps import alphas, one_jump
from benchmarks.rlvr.campaign.tables.of_savings import savings
from benchmarks.rlvr.campaign.tables.of_worth import worth
from benchmarks.rlvr.campaign.tables.with_guard import guard

SECTIONS: dict[str, Callable[[Results], str]] = {
    "steps": steps,
    "larger": larger,
    "rates": rates,
    "best": best,
    "again": again,
    "savings": savings,
    "falling": falling,
    "guard": guard,
    "worth": worth,
    "one-jump": one_jump,
    "cycles": cycles,
    "algorithms": algorithms,
}
"""Each writes a section of docs/benchmarks.md of its own."""
SWEPT: dict[str, Callable[[Results, Sequence[Swept]], str]] = {
    "alpha": alphas,
    "averages": averages,
    "ended": ended,
}
"""So do these, of what was swept."""
