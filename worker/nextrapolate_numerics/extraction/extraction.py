"""What is learnt of a trajectory in one pass over its files, and what methods learn from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.module_geometry import ModuleGeometry
from nextrapolate_numerics.extraction.parts import ModuleParts
from nextrapolate_numerics.extraction.triples import ModuleTriples, Seen
from nextrapolate_numerics.series import Drift, Trajectory


@dataclass(frozen=True)
class Evidence:
    """What a method learns from, and extraction has to provide; several methods need the union.

    Attributes:
        gram: inner products of the points' deltas.
        triples: of which deltas the leading triples are wanted.
        parts: ranks of the leading parts that are looked at.
        entries: single weights. Nothing is extracted for them: `fit` makes the full matrices from the
            factors, which takes it longer than all else a method does.
        geometry: for readers, not for methods; told from the inner products, which come with it.
    """

    gram: bool = False
    triples: Seen = Seen.NONE
    parts: frozenset[int] = frozenset()
    entries: bool = False
    geometry: bool = False

    def __or__(self, other: "Evidence") -> "Evidence":
        return Evidence(
            self.gram or other.gram,
            max(self.triples, other.triples),
            self.parts | other.parts,
            self.entries or other.entries,
            self.geometry or other.geometry,
        )


@dataclass(frozen=True)
class Extraction:
    """What was learnt of a trajectory, and how much of it is visible.

    Attributes:
        trajectory: where it came from.
        drift: the steps that are visible; fewer than the trajectory's where a backtest hides some.
        horizon_steps: the horizon that `pairs` span.
        pairs: (i, i + k), indices of the drift's steps one horizon apart.
        moved: names of the modules whose delta changed at all.
        energy_ratios: sigma_1 / sum sigma of the last global delta, by module; 0 where it is 0.
        drift_norms: Frobenius norm of the last global delta, by module.
        grams: (p, p) float64 over the trajectory's points, by moved module; empty unless the method needs it.
        triples: by moved module; empty unless the method needs them.
        parts: likewise.
        geometry: by moved module, of the whole trajectory; empty unless it is asked for.
        device: where the work is done.
    """

    trajectory: Trajectory
    drift: Drift
    horizon_steps: int
    pairs: tuple[tuple[int, int], ...]
    moved: frozenset[str]
    energy_ratios: Mapping[str, float]
    drift_norms: Mapping[str, float]
    grams: Mapping[str, Tensor]
    triples: Mapping[str, ModuleTriples]
    parts: Mapping[str, ModuleParts]
    geometry: Mapping[str, ModuleGeometry]
    device: torch.device

    def until(self, index: int) -> "Extraction":
        """What could be seen at an earlier step, by its index in the drift; the points keep their numbers."""
        drift = self.drift.until(index)
        pairs = drift.pairs(self.horizon_steps)
        triples = {name: found.until(index, len(pairs)) for name, found in self.triples.items()}
        parts = {name: found.until(index) for name, found in self.parts.items()}
        return replace(self, drift=drift, pairs=pairs, triples=triples, parts=parts)
