"""Whether a run went on from an adapter that its series does not hold.

PEFT's config says of such a run, as of any other, that its factors started at the base model. Then all that
the adapter held already counts as movement since step 0, and most methods follow it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.extraction import Extraction
from nextrapolate_numerics.extraction.gram import summed
from nextrapolate_numerics.series import Drift

_FAR = 5.0
"""Times the length that later increments suggest.

On three runs of GRPO, cut to many choices of checkpoints, the first increment has 1.3 at most; where a
learning rate falls to 0 over two increments it has 3. One that holds 150 steps more than it says has 6 to 7
on them, and supervised training is longer, at a larger rate.
"""


def continued(extraction: Extraction) -> Iterator[str]:
    """A warning where the first increment is far too long; nothing is told without inner products."""
    drift = extraction.drift
    if not extraction.grams or not drift.starts_at_base or len(drift.segments) < 2:
        return
    inner = summed(extraction.grams)
    times = _times_too_long(drift, inner)
    if times > _FAR:
        yield (
            f"The first checkpoint, at step {drift.steps[1]}, is {times:.0f} times further from the base "
            "model than the fastest of the later increments would have led: training seems to have begun "
            "with an adapter that was trained before. What that holds counts as movement since step 0, and "
            "most methods are misled by it. Post the adapter that training began with as the checkpoint at "
            "step 0."
        )


def _times_too_long(drift: Drift, inner: Tensor) -> float:
    """The first increment's length over the largest that a later one suggests; 0 where none moved.

    A way over g times as many steps is g times as long where the run is steady, and sqrt(g) times where it
    is noise: the longer of the two is what an increment suggests.
    """
    increments = drift.coefficients.diff(dim=0)
    lengths = ((increments @ inner) * increments).sum(dim=1).clamp(min=0).sqrt()
    steps = torch.tensor(drift.steps, dtype=torch.float64).diff()
    share = steps[0] / steps[1:]
    suggested = (lengths[1:] * torch.maximum(share, share.sqrt())).max()
    return float(lengths[0] / suggested) if suggested > 0 else 0.0
