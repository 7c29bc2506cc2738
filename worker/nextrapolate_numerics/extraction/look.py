"""What is looked for in a group of modules: in one window of steps after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.extraction.before_jumps import Done, done_before
from nextrapolate_numerics.extraction.decompositions import global_spectra
from nextrapolate_numerics.extraction.extraction import Evidence
from nextrapolate_numerics.extraction.gram import FactorGrams, Pairs, entry_sums, gram
from nextrapolate_numerics.extraction.groups import Group, most_pairs
from nextrapolate_numerics.extraction.module_geometry import ModuleGeometry, module_geometries
from nextrapolate_numerics.extraction.parts import ModuleParts, parts_of
from nextrapolate_numerics.extraction.triples import ModuleTriples, triples_of
from nextrapolate_numerics.extraction.windows import Window, Windows
from nextrapolate_numerics.series import Drift, Trajectory


@dataclass(frozen=True)
class Found:
    """What there is to know of one module that moved; None is what was not asked for."""

    energy_ratio: float
    norm: float
    gram: Tensor | None
    triples: ModuleTriples | None
    parts: ModuleParts | None
    geometry: ModuleGeometry | None


@dataclass(frozen=True)
class _Told:
    """What one window of steps tells of g modules; what was not asked for is empty or None.

    Attributes:
        dones: what had been done before each span of the last global delta.
        ratios: (g, b) energy ratios of global deltas.
        norm: (g,) of the last one.
        inner: (g, p, p) inner products of the points' deltas; 0 where the window does not hold them.
        sums: (g, p) of the entries of each of them.
        triples: of each module.
        parts: likewise.
    """

    dones: Sequence[Done]
    ratios: Tensor
    norm: Tensor
    inner: Tensor | None
    sums: Tensor
    triples: Sequence[ModuleTriples]
    parts: Sequence[ModuleParts]


@dataclass(frozen=True)
class Look:
    """What is looked for in every group.

    Attributes:
        trajectory: that the groups are of.
        evidence: that is wanted.
        horizon_steps: how far ahead methods are asked.
        pairs: indices of the drift's steps one horizon apart.
        windows: of steps, and what is held of points in each.
    """

    trajectory: Trajectory
    evidence: Evidence
    horizon_steps: int
    pairs: tuple[tuple[int, int], ...]
    windows: Windows

    @classmethod
    def of(cls, trajectory: Trajectory, evidence: Evidence, horizon_steps: int, device: torch.device) -> Self:
        """What comes with the evidence included."""
        evidence |= Evidence(gram=evidence.geometry)
        drift = trajectory.drift
        windows = Windows.of(drift, evidence, horizon_steps, most_pairs(trajectory, device))
        return cls(trajectory, evidence, horizon_steps, drift.pairs(horizon_steps), windows)

    def at(self, group: Group) -> dict[str, Found]:
        """Multiply the modules' factors, and tell everything from that.

        Raises:
            NonFiniteWeightsError: NaN or Inf in a factor.
        """
        if not group.names:
            return {}
        *before, last = self.windows.windows
        of_last = self._told(group, last)
        told = [*(self._told(group, window, of_last.dones) for window in before), of_last]
        ratios = torch.cat([each.ratios for each in told], dim=1).tolist()
        inner = self._inner(group, told)
        nothing: list[None] = [None] * len(group.names)
        triples: Sequence[ModuleTriples | None] = nothing
        parts: Sequence[ModuleParts | None] = nothing
        geometry: Sequence[ModuleGeometry | None] = nothing
        if self.evidence.triples:
            triples = [ModuleTriples.joined(some) for some in zip(*(of.triples for of in told), strict=True)]
        if self.evidence.parts:
            parts = [ModuleParts.joined(some) for some in zip(*(of.parts for of in told), strict=True)]
        if inner is not None and self.evidence.geometry:
            drift = self.trajectory.drift
            geometry = module_geometries(inner, of_last.sums, group.entries, ratios, drift)
        return {
            name: Found(
                energy_ratio=ratios[module][-1],
                norm=float(of_last.norm[module]),
                gram=None if inner is None else inner[module],
                triples=triples[module],
                parts=parts[module],
                geometry=geometry[module],
            )
            for module, name in enumerate(group.names)
        }

    def _told(self, group: Group, window: Window, dones: Sequence[Done] | None = None) -> _Told:
        """What a window tells; the last one finds out what had been done before."""
        evidence, drift, steps = self.evidence, self.trajectory.drift, window.steps
        grams = self._multiplied(group, window.pairs, sums=evidence.geometry and dones is None)
        if dones is None:
            dones = done_before(drift.spans(0, steps[-1]), grams)
        ratios, norm = _globals(grams, drift, steps if evidence.geometry else steps[-1:], dones)
        triples: Sequence[ModuleTriples] = ()
        parts: Sequence[ModuleParts] = ()
        if evidence.triples:
            triples = triples_of(group, grams, drift, steps, self.pairs, evidence.triples, dones)
        if evidence.parts:
            ranks = tuple(sorted(evidence.parts))
            parts = parts_of(grams, drift, steps, ranks, dones, self.horizon_steps)
        inner = gram(grams) if evidence.gram else None
        return _Told(dones, ratios, norm, inner, entry_sums(grams), triples, parts)

    def _inner(self, group: Group, told: Sequence[_Told]) -> Tensor | None:
        """Inner products of all points' deltas, (g, p, p), if they are wanted."""
        if not (some := [each.inner for each in told if each.inner is not None]):
            return None
        inner = reduce(lambda one, other: torch.where(one != 0, one, other), some)
        for pairs in self.windows.others:
            alike = Pairs.of(inner.shape[-1], pairs.tolist(), mirrored=False)
            inner += gram(self._multiplied(group, alike))
        return inner

    def _multiplied(self, group: Group, pairs: Pairs, *, sums: bool = False) -> FactorGrams:
        grams = group.multiplied(pairs, sums=sums)
        if broken := grams.broken_points():
            raise self.trajectory.not_finite(*min((group.names[module], point) for module, point in broken))
        return grams


def _globals(grams: FactorGrams, drift: Drift, steps: range, dones: Sequence[Done]) -> tuple[Tensor, Tensor]:
    """Energy ratios (g, b) of each module's global delta at b steps, and the norm (g,) of the last of these.

    sigma_1 / sum sigma, as NExt defines it (arXiv 2604.11446, Fig. 2): not squared; 0 where a delta is 0.
    """
    spectra = list(global_spectra(grams, [drift.spans(0, at) for at in steps], dones))
    ratios = [torch.where((first := of[..., 0]) > 0, first / of.sum(dim=-1), 0.0) for of in spectra]
    return torch.cat(ratios, dim=1), spectra[-1][:, -1].norm(dim=-1)
