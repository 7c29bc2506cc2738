"""A run's adapters as one trajectory, read from its files one module at a time.

The trajectory's *points* are its checkpoints, in the order of their steps, followed by the adapters that were
swapped in by jumps. Everything that methods predict is a combination of points.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from nextrapolate_numerics.errors import (
    JumpWithoutCheckpointError,
    MismatchedAdaptersError,
    NonFiniteWeightsError,
    StepOrderError,
    TooFewCheckpointsError,
)
from nextrapolate_numerics.series.adapter import AdapterLayout, StoredFactor, diagnosed
from nextrapolate_numerics.series.drift import Drift
from nextrapolate_numerics.series.lora_config import LoraConfig


@dataclass(frozen=True)
class AdapterFiles:
    """One adapter on disk.

    Attributes:
        step: training step of the checkpoint; of a jump, the step after which its adapter was swapped in.
        model: adapter_model.safetensors.
        config: adapter_config.json.
    """

    step: int
    model: Path
    config: Path


@dataclass(frozen=True)
class ModuleFactors:
    """One module's factors at p points: dW_k = scaling B[k] A[k].

    Attributes:
        B: p times (m, r) float32.
        A: p times (r, n) float32.
        scaling: the LoRA scaling, the same at all points. It is kept apart because folding it into float32
            factors would round them, by as much as neighbouring checkpoints differ.
    """

    B: tuple[Tensor, ...]
    A: tuple[Tensor, ...]
    scaling: float


@dataclass(frozen=True)
class StoredModule:
    """One module's factors at p points, in their files.

    Attributes:
        B: p times (m, r).
        A: p times (r, n).
        scaling: as of `ModuleFactors`.
    """

    B: tuple[StoredFactor, ...]
    A: tuple[StoredFactor, ...]
    scaling: float


@dataclass(frozen=True)
class Trajectory:
    """The checkpoints of one run, and the jumps made inside it.

    Attributes:
        points: the checkpoints, steps ascending, then the adapters of the jumps.
        layouts: what each point's file holds, in the same order.
        config: the last checkpoint's adapter_config.json.
        drift: the checkpoints with the jumps taken out.
        warnings: what a reader of the result should know about its input.
    """

    points: tuple[AdapterFiles, ...]
    layouts: tuple[AdapterLayout, ...]
    config: LoraConfig
    drift: Drift
    warnings: tuple[str, ...]

    @classmethod
    def open(cls, checkpoints: Sequence[AdapterFiles], jumps: Sequence[AdapterFiles] = ()) -> "Trajectory":
        """Read all configs and headers, and check that they make one trajectory. Weights are not read yet.

        Args:
            checkpoints: at least 2, steps ascending.
            jumps: the adapter swapped in after the checkpoint of the same step. Those at or after the last
                checkpoint left no trace in the series, and are dropped.

        Raises:
            AdapterError: a file cannot be used.
            SeriesError: the files do not make one trajectory.
        """
        if len(checkpoints) < 2:
            raise TooFewCheckpointsError("An extrapolation", have=len(checkpoints), need=2)
        steps = [files.step for files in checkpoints]
        _check_ascending(steps, "checkpoints")
        jumps = [files for files in jumps if files.step < steps[-1]]
        _check_ascending([files.step for files in jumps], "jumps")
        for jump in jumps:
            if jump.step not in steps:
                raise JumpWithoutCheckpointError(jump.step)
        points = (*checkpoints, *jumps)
        configs = [LoraConfig.read(files.config) for files in points]
        layouts = _layouts(points, configs)
        last = len(steps) - 1
        drift = Drift.of(steps, [jump.step for jump in jumps], starts_at_base=configs[0].starts_at_base)
        return cls(points, layouts, configs[last], drift, _warnings(layouts[last], layouts))

    @property
    def checkpoints(self) -> tuple[AdapterFiles, ...]:
        """The checkpoints, steps ascending."""
        return self.points[: self.last + 1]

    @property
    def jumps(self) -> tuple[AdapterFiles, ...]:
        """The adapters of the jumps, steps ascending."""
        return self.points[self.last + 1 :]

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of the checkpoints, ascending."""
        return tuple(files.step for files in self.checkpoints)

    @property
    def jump_steps(self) -> tuple[int, ...]:
        """Steps after which a jump's adapter was swapped in."""
        return tuple(files.step for files in self.jumps)

    @property
    def last(self) -> int:
        """Index of the last checkpoint among the points."""
        return self.drift.last_point

    @property
    def module_names(self) -> tuple[str, ...]:
        """Names of the modules, as in the base model, sorted."""
        return tuple(self.layouts[0].modules)

    def stored(self, name: str, points: Sequence[int] | None = None) -> StoredModule:
        """Where one module's factors are, at all points or at those given, in that order."""
        indices = range(len(self.points)) if points is None else points
        Bs, As = zip(*(self.layouts[point].factors(name) for point in indices), strict=True)
        return StoredModule(Bs, As, self.config.scaling(name))

    def factors(self, name: str, points: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """One module's B and A, float32, read at one point after the other.

        Raises:
            NonFiniteWeightsError: NaN or Inf.
            BrokenAdapterError: a file was cut short, or cannot be read any more.
        """
        for point in points:
            B, A = (factor.read().float() for factor in self.layouts[point].factors(name))
            if not (_is_finite(B) and _is_finite(A)):
                raise self.not_finite(name, point)
            yield B, A

    def module(self, name: str, points: Sequence[int] | None = None) -> ModuleFactors:
        """One module's factors, read at all points or at those given, in that order.

        Raises:
            NonFiniteWeightsError: as of `factors`.
            BrokenAdapterError: likewise.
        """
        indices = range(len(self.points)) if points is None else points
        Bs, As = zip(*self.factors(name, indices), strict=True)
        return ModuleFactors(Bs, As, self.config.scaling(name))

    def moved(self, name: str) -> bool:
        """Whether a module's delta changed at all; NaN and Inf are not looked for."""
        spans = ([end] if start is None else [start, end] for start, end in self.drift.segments)
        return any(_has_moved(self.stored(name, span)) for span in spans)

    def not_finite(self, name: str, point: int) -> NonFiniteWeightsError:
        """What to raise where a module's factors at a point hold NaN or Inf."""
        return NonFiniteWeightsError(name, self.points[point].step, self.points[point].model)

    def read(self, point: int, factors: Sequence[tuple[str, bool]], room: Tensor) -> None:
        """Copy factors at a point, one behind the other, into memory that is given.

        Args:
            point: its index.
            factors: each one's module, and whether it is its B or its A.
            room: as many float32 as they have entries, contiguous, on the CPU.

        Raises:
            BrokenAdapterError: the file was cut short, or cannot be read any more.
        """
        layout = self.layouts[point]
        keys = ((layout.modules[name], is_B) for name, is_B in factors)
        with diagnosed(layout.path):
            layout.file.read([of.B if is_B else of.A for of, is_B in keys], room)


def _has_moved(module: StoredModule) -> bool:
    """Whether training changed a module's delta: from 0 to that of one point, or between two, by a bit."""
    if all(map(_is_nothing, module.B)):
        return False
    if len(module.B) == 1:
        return not _is_nothing(module.A[0])
    return not (_are_same(*module.B) and _are_same(*module.A))


def _is_nothing(factor: StoredFactor) -> bool:
    """Whether all entries are 0; one that is not shows it in its first row, as a rule."""
    return not (factor.first_row().any() or factor.read().any())


def _are_same(factor: StoredFactor, other: StoredFactor) -> bool:
    """Whether all entries are; those that are not show it in their first rows, as a rule."""
    begin_alike = torch.equal(factor.first_row(), other.first_row())
    return begin_alike and torch.equal(factor.read().float(), other.read().float())


def _is_finite(tensor: Tensor) -> bool:
    """A sum is finite only where all entries are; where it overflows, they are looked at."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _check_ascending(steps: Sequence[int], what: str) -> None:
    for earlier, later in pairwise(steps):
        if later <= earlier:
            raise StepOrderError(
                f"The steps of the {what} must ascend, but {later} follows {earlier}. Give each step once, "
                "in the order of training."
            )


def _layouts(points: Sequence[AdapterFiles], configs: Sequence[LoraConfig]) -> tuple[AdapterLayout, ...]:
    """Of points that make one trajectory; what is like the first one in everything is soon seen to."""
    first = AdapterLayout.read(points[0].model, configs[0])
    layouts = [first]
    for files, config in zip(points[1:], configs[1:], strict=True):
        like = first if config.says_the_same_as(configs[0]) else None
        layouts.append(layout := AdapterLayout.read(files.model, config, like))
        if layout.modules is not first.modules:
            _check_match(layout, config, first, configs[0])
    return tuple(layouts)


def _check_match(
    layout: AdapterLayout, config: LoraConfig, first: AdapterLayout, reference: LoraConfig
) -> None:
    def mismatch(what: str) -> MismatchedAdaptersError:
        return MismatchedAdaptersError(layout.path, first.path, what)

    if config.base_model != reference.base_model:
        raise mismatch(f"the base model is {config.base_model!r}, not {reference.base_model!r}")
    if strange := layout.modules.keys() ^ first.modules.keys():
        raise mismatch(f"the adapted modules differ ({', '.join(sorted(strange)[:3])})")
    for name, keys in layout.modules.items():
        expected = first.modules[name]
        if keys.r != expected.r:
            raise mismatch(f"{name} has rank {keys.r}, not {expected.r}")
        if (keys.m, keys.n) != (expected.m, expected.n):
            raise mismatch(f"{name} is of shape {(keys.m, keys.n)}, not {(expected.m, expected.n)}")
        if config.scaling(name) != reference.scaling(name):
            raise mismatch(f"{name} has scaling {config.scaling(name):g}, not {reference.scaling(name):g}")


def _warnings(last: AdapterLayout, layouts: Sequence[AdapterLayout]) -> tuple[str, ...]:
    warnings = []
    if last.others:
        warnings.append(
            f"{len(last.others)} tensors that are not LoRA factors (modules_to_save or trainable tokens) "
            f"keep the value of the last checkpoint: {', '.join(last.others[:3])}."
        )
    if blurred := {"BF16", "F16"} & {dtype for layout in layouts for dtype in layout.dtypes}:
        warnings.append(
            f"Factors were saved as {', '.join(sorted(blurred))}, which blurs the small differences between "
            "neighbouring checkpoints. Save adapters in float32."
        )
    return tuple(warnings)
