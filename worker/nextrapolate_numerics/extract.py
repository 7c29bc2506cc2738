"""One pass over a run's files, for one method."""

import torch

from nextrapolate_numerics.extraction import Evidence, Extraction, gather
from nextrapolate_numerics.methods.method import Method
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Trajectory


def extract(
    trajectory: Trajectory,
    method: Method,
    horizon_steps: int,
    *,
    geometry: bool = False,
    device: str | torch.device = "cpu",
    on_progress: Progress = silent,
) -> Extraction:
    """Read every module once, and keep what the method needs; with `geometry` measure the modules, too.

    Raises:
        TooFewCheckpointsError: less than the method needs; found before anything is read.
        NonFiniteWeightsError: NaN or Inf in a factor.
        NothingMovedError: no module ever changed.
    """
    method.check(trajectory.drift, horizon_steps)
    evidence = method.needs | Evidence(geometry=geometry)
    return gather(trajectory, evidence, horizon_steps, device=device, on_progress=on_progress)
