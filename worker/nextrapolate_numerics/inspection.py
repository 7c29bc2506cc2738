"""The geometry of a run: how its deltas lie, how straight and how steady the way is."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nextrapolate_numerics.backtest import Backtest, backtest
from nextrapolate_numerics.errors import TooFewCheckpointsError
from nextrapolate_numerics.extraction import Evidence, Extraction, ModuleGeometry, continued, gather
from nextrapolate_numerics.methods import Autoregression
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Trajectory

_MINIMUM = 3
"""Checkpoints: any two lie on a line."""


@dataclass(frozen=True)
class Geometry:
    """A run's geometry.

    Attributes:
        steps: of the c checkpoints.
        modules: by name, those that moved.
        still: names of those that never did.
    """

    steps: tuple[int, ...]
    modules: Mapping[str, ModuleGeometry]
    still: tuple[str, ...]

    @classmethod
    def of(cls, extraction: Extraction) -> "Geometry":
        """From an extraction whose evidence has it."""
        drift = extraction.drift
        still = tuple(name for name in extraction.trajectory.module_names if name not in extraction.moved)
        return cls(drift.steps[drift.starts_at_base :], extraction.geometry, still)


@dataclass(frozen=True)
class Inspection:
    """A run's geometry, and what it says of the run.

    Attributes:
        geometry: measured on all checkpoints.
        evidence: the autoregression, shown the earlier two thirds of the run and asked for the rest; None
            where the series is too short.
        warnings: what a reader should know about the series.
    """

    geometry: Geometry
    evidence: Backtest | None
    warnings: tuple[str, ...]


def inspect(
    trajectory: Trajectory, *, device: str | torch.device = "cpu", on_progress: Progress = silent
) -> Inspection:
    """Read every module once, and measure it.

    Raises:
        TooFewCheckpointsError: fewer than three.
        NonFiniteWeightsError: NaN or Inf in a factor.
        NothingMovedError: no module ever changed.
    """
    drift = trajectory.drift
    if drift.checkpoints < _MINIMUM:
        raise TooFewCheckpointsError("An inspection", have=drift.checkpoints, need=_MINIMUM)
    horizon_steps = max(1, (drift.last_step - drift.steps[0]) // 3)
    extraction = gather(
        trajectory, Evidence(geometry=True), horizon_steps, device=device, on_progress=on_progress
    )
    evidence = backtest(Autoregression(), extraction, horizon_steps)
    return Inspection(Geometry.of(extraction), evidence, (*trajectory.warnings, *continued(extraction)))
