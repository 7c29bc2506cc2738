"""Where a series is not the way of one run: increments that are far too long, or that are none.

The first one is where training went on from an adapter that the series does not hold. PEFT's config says of
such a run, as of any other, that its factors started at the base model; then all that the adapter held
already counts as movement since step 0, and most methods follow it. A later one is where checkpoints of two
runs meet, or where training was restarted or broke. Methods follow that, too, and a backtest that was asked
before it knows nothing of what comes after.

Where no module changed, one checkpoint may have been posted under two steps. Weights do not tell that from a
training that rested, so that words about it have to be true of both.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.extraction import Extraction
from nextrapolate_numerics.extraction.gram import squared_norm, summed
from nextrapolate_numerics.series import Drift

_FAR_FROM_BASE, _FAR = 5.0, 3.0
"""Times the length that other increments suggest: the first one, and later ones.

On three runs of GRPO, cut to many choices of checkpoints, the first increment has 1.3 at most, a later one
1.1; where a learning rate falls to 0 over two increments the first has 3. One that holds 150 steps more than
it says has 6 to 7 on them, and supervised training is longer, at a larger rate.
"""
_RISES = 3  # of so few increments a later one may be the longest by far where the learning rate rises
_TWO_BY_TWO = 5  # of so many, the longest other one does not count: a foreign checkpoint makes two


@dataclass(frozen=True)
class Break:
    """An increment that is too long for its run.

    Attributes:
        begin_step: of the checkpoint before; of the base model, where that is where the run seems to begin.
        end_step: of the checkpoint that is too far away.
        times: as far as the others suggest; of five increments and more, without that which suggests most.
        from_base: whether the increment is that from the base model.
    """

    begin_step: int
    end_step: int
    times: float
    from_base: bool

    @property
    def warning(self) -> str:
        """What it is, and what to do."""
        if self.from_base:
            return (
                f"The first checkpoint, at step {self.end_step}, is {self.times:.0f} times further from "
                "the base model than the later increments suggest: training seems to have started from an "
                "adapter that was trained earlier. The change that this adapter already held is counted "
                "as if it had happened after step 0, which misleads most methods. Post the starting "
                "adapter as the checkpoint at step 0."
            )
        return (
            f"From step {self.begin_step} to {self.end_step} the adapter moved {self.times:.0f} times as "
            "far as the other increments suggest: these look like checkpoints of two runs, or training "
            "was restarted or diverged there. Methods extrapolate such a break as if it were training. "
            f"Use the checkpoints of one run, or those before step {self.end_step}."
        )


@dataclass(frozen=True)
class Rest:
    """A stretch of the series in which no module changed, while the run moved elsewhere.

    Attributes:
        begin_step: of the checkpoint before, or of the base model.
        end_step: of the last checkpoint that is the same.
    """

    begin_step: int
    end_step: int

    @property
    def warning(self) -> str:
        """What it may be, and what to do."""
        return (
            f"No module changed by more than rounding from step {self.begin_step} to {self.end_step}. Either "
            "training rested there, as at a learning rate of 0, or what was posted is an older adapter. "
            "Methods take it for rest, which can shorten a jump. If training went on, check which file is "
            "posted at each step."
        )


def rests(extraction: Extraction) -> tuple[Rest, ...]:
    """All of them, in the order of their steps; nothing is told without inner products."""
    drift, grams = extraction.drift, extraction.grams
    if not grams:
        return ()
    inner, found = summed(grams), list[Rest]()
    increments = drift.coefficients.diff(dim=0)
    for (begin_step, end_step), way in zip(pairwise(drift.steps), increments, strict=True):
        # All modules together are quickly asked, but do not know of a small one that moved beside large ones.
        if squared_norm(way, inner) or any(squared_norm(way, gram) for gram in grams.values()):
            continue
        if found and found[-1].end_step == begin_step:
            begin_step = found.pop().begin_step
        found.append(Rest(begin_step, end_step))
    return tuple(found)


def breaks(extraction: Extraction) -> tuple[Break, ...]:
    """All of them, in the order of their steps; nothing is told without inner products."""
    drift = extraction.drift
    count = len(drift.segments)
    if not extraction.grams or count < 2:
        return ()
    found = []
    for index, times in enumerate(_times_too_long(drift, summed(extraction.grams))):
        from_base = index == 0 and drift.starts_at_base
        if times > (_FAR_FROM_BASE if from_base else _FAR) and (from_base or count >= _RISES):
            found.append(Break(drift.steps[index], drift.steps[index + 1], times, from_base))
    return tuple(found)


def _times_too_long(drift: Drift, inner: Tensor) -> list[float]:
    """Each increment's length over the largest that others suggest; 0 where none moved.

    A way over g times as many steps is g times as long where the run is steady, and sqrt(g) times where it
    is noise: the longer of the two is what an increment suggests.
    """
    increments = drift.coefficients.diff(dim=0)
    lengths = ((increments @ inner) * increments).sum(dim=1).clamp(min=0).sqrt()
    steps = torch.tensor(drift.steps, dtype=torch.float64).diff()
    share = steps.unsqueeze(1) / steps
    by_others = (lengths * torch.maximum(share, share.sqrt())).fill_diagonal_(0)
    suggested = by_others.sort(dim=1, descending=True).values[:, 0 if len(steps) < _TWO_BY_TWO else 1]
    times: list[float] = torch.where(suggested > 0, lengths / suggested, 0.0).tolist()
    return times
