"""The geometry of a run: how its deltas lie, how straight and how steady the way is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nextrapolate_numerics.backtest import Backtest, backtest
from nextrapolate_numerics.errors import NoBacktestError, TooFewCheckpointsError
from nextrapolate_numerics.extraction import (
    Break,
    Evidence,
    Extraction,
    ModuleGeometry,
    breaks,
    gather,
    rests,
    summed,
)
from nextrapolate_numerics.methods import Auto
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Trajectory

_MINIMUM = 3
"""Checkpoints: any two lie on a line."""


@dataclass(frozen=True)
class Passage:
    """A run at one of its checkpoints, over all modules.

    Attributes:
        step: of the checkpoint.
        drift_norm: Frobenius norm of the drift since the base.
        speed: norm of the increment since the checkpoint before, per training step; None of the first.
        steadiness: cosine between this increment and the one before; None of the first two, and where one of
            them is 0.
    """

    step: int
    drift_norm: float
    speed: float | None
    steadiness: float | None


@dataclass(frozen=True)
class Kind:
    """Modules of one kind over the run.

    Attributes:
        name: last part of the modules' names, such as q_proj.
        modules: how many of them moved.
        energy_ratios: (c) sigma_1 / sum sigma of the global deltas, in the mean.
        drift_norms: (c) Frobenius norm of the global deltas, over all of them.
        variance_explained: shares of the deltas' squared norm in the leading directions in time, in the mean.
    """

    name: str
    modules: int
    energy_ratios: tuple[float, ...]
    drift_norms: tuple[float, ...]
    variance_explained: tuple[float, ...]

    @classmethod
    def of(cls, name: str, modules: Sequence[ModuleGeometry]) -> "Kind":
        """From one module at least."""
        ratios = torch.tensor([module.energy_ratios for module in modules])
        norms = torch.stack([module.squared_norms for module in modules]).sum(dim=0).clamp(min=0).sqrt()
        explained = torch.tensor([module.variance_explained for module in modules])
        return cls(
            name,
            len(modules),
            tuple(ratios.mean(dim=0).tolist()),
            tuple(norms.tolist()),
            tuple(explained.mean(dim=0).tolist()),
        )


@dataclass(frozen=True)
class Geometry:
    """A run's geometry.

    Attributes:
        steps: of the c checkpoints.
        inner: (c, c) float64 inner products of the drift, all modules together.
        modules: by name, those that moved.
        still: names of those that never did.
        breaks: increments that are too long for one run.
    """

    steps: tuple[int, ...]
    inner: Tensor
    modules: Mapping[str, ModuleGeometry]
    still: tuple[str, ...]
    breaks: tuple[Break, ...]

    @classmethod
    def of(cls, extraction: Extraction) -> "Geometry":
        """From an extraction whose evidence has it."""
        drift = extraction.drift
        first = int(drift.starts_at_base)
        coefficients = drift.coefficients[first:]
        inner = coefficients @ summed(extraction.grams) @ coefficients.T
        still = tuple(name for name in extraction.trajectory.module_names if name not in extraction.moved)
        return cls(drift.steps[first:], inner, extraction.geometry, still, breaks(extraction))

    @property
    def track(self) -> tuple[Passage, ...]:
        """The run at each checkpoint, and what that one added."""
        steps = torch.tensor(self.steps, dtype=torch.float64)
        differences = torch.eye(len(steps), dtype=torch.float64).diff(dim=0)
        increments = differences @ self.inner @ differences.T
        lengths = increments.diagonal().clamp(min=0).sqrt()
        cosines = increments.diagonal(1) / (lengths[1:] * lengths[:-1])
        speeds = lengths / steps.diff()
        norms = self.inner.diagonal().clamp(min=0).sqrt()
        return tuple(
            Passage(
                step,
                float(norms[index]),
                float(speeds[index - 1]) if index else None,
                float(cosines[index - 2]) if index > 1 and cosines[index - 2].isfinite() else None,
            )
            for index, step in enumerate(self.steps)
        )

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The modules by their kind, in the order of the kinds' names."""
        kinds: defaultdict[str, list[ModuleGeometry]] = defaultdict(list)
        for name, module in self.modules.items():
            kinds[name.rpartition(".")[2]].append(module)
        return tuple(Kind.of(kind, kinds[kind]) for kind in sorted(kinds))


@dataclass(frozen=True)
class Inspection:
    """A run's geometry, and what it says of the run.

    Attributes:
        geometry: measured on all checkpoints.
        evidence: `auto`, which is the default of extrapolations, shown the earlier two thirds of the run and
            asked for the rest; or the error that says why there is none.
        warnings: what a reader should know about the series.
    """

    geometry: Geometry
    evidence: Backtest | NoBacktestError
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
    evidence: Backtest | NoBacktestError
    try:
        evidence = backtest(Auto(), extraction, horizon_steps)
    except NoBacktestError as reason:
        evidence = reason
    geometry = Geometry.of(extraction)
    told = [found.warning for found in geometry.breaks] + [found.warning for found in rests(extraction)]
    return Inspection(geometry, evidence, (*trajectory.warnings, *told))
