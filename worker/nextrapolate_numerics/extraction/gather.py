"""One pass over the files: from factors to what a method learns from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import torch
from torch import Tensor

from nextrapolate_numerics.errors import NothingMovedError
from nextrapolate_numerics.extraction.before_jumps import Done, done_before
from nextrapolate_numerics.extraction.decompositions import global_spectra
from nextrapolate_numerics.extraction.deltas import points_of
from nextrapolate_numerics.extraction.extraction import Evidence, Extraction
from nextrapolate_numerics.extraction.gram import FactorGrams, Pairs, entry_sums, gram
from nextrapolate_numerics.extraction.groups import Group, at_once, moving, planned
from nextrapolate_numerics.extraction.module_geometry import ModuleGeometry, module_geometries
from nextrapolate_numerics.extraction.parts import ModuleParts, parts_of
from nextrapolate_numerics.extraction.sending import sent
from nextrapolate_numerics.extraction.tiles import MappedGroup
from nextrapolate_numerics.extraction.triples import ModuleTriples, seen_deltas, triples_of
from nextrapolate_numerics.parallel import in_threads
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift, Trajectory


def gather(
    trajectory: Trajectory,
    evidence: Evidence,
    horizon_steps: int,
    *,
    device: str | torch.device = "cpu",
    on_progress: Progress = silent,
) -> Extraction:
    """Read every module once, and keep the evidence that is wanted: what one or many methods learn from.

    Raises:
        NonFiniteWeightsError: NaN or Inf in a factor.
        NothingMovedError: no module ever changed.
    """
    device = torch.device(device)
    pairs = trajectory.drift.pairs(horizon_steps)
    look = _Look.of(trajectory, evidence, pairs)
    plan = planned(trajectory, look.multiplied, device)
    found: dict[str, _Found] = {}
    for done, of_group in enumerate(_found(look, plan, device), start=1):
        found |= of_group
        on_progress(done / len(plan))
    trajectory.forget()
    if not found:
        raise NothingMovedError
    # in the order of the modules, which is not that of a GPU's groups
    found = {name: found[name] for name in trajectory.module_names if name in found}
    still = dict.fromkeys(trajectory.module_names, 0.0)
    return Extraction(
        trajectory,
        trajectory.drift,
        horizon_steps,
        pairs,
        frozenset(found),
        still | {name: each.energy_ratio for name, each in found.items()},
        still | {name: each.norm for name, each in found.items()},
        {name: each.gram for name, each in found.items() if each.gram is not None},
        {name: each.triples for name, each in found.items() if each.triples is not None},
        {name: each.parts for name, each in found.items() if each.parts is not None},
        {name: each.geometry for name, each in found.items() if each.geometry is not None},
        device,
    )


def _found(look: "_Look", plan: Sequence[list[str]], device: torch.device) -> Iterator[dict[str, "_Found"]]:
    """What each group tells: on a CPU of several at a time, on a GPU of one after the other."""
    if device.type == "cuda":
        return map(look.at, sent(look.trajectory, plan, device))

    def mapped(names: list[str]) -> dict[str, "_Found"]:
        moved = moving(look.trajectory, names)
        return look.at(MappedGroup.of(look.trajectory.modules(moved)))

    return in_threads(mapped, plan, at_once(look.trajectory, look.multiplied))


@dataclass(frozen=True)
class _Found:
    """What there is to know of one module that moved; None is what was not asked for."""

    energy_ratio: float
    norm: float
    gram: Tensor | None = None
    triples: ModuleTriples | None = None
    parts: ModuleParts | None = None
    geometry: ModuleGeometry | None = None


@dataclass(frozen=True)
class _Look:
    """What is looked for in every group.

    Attributes:
        trajectory: that the groups are of.
        evidence: that is wanted.
        pairs: indices of the drift's steps one horizon apart.
        multiplied: points whose factors are.
    """

    trajectory: Trajectory
    evidence: Evidence
    pairs: tuple[tuple[int, int], ...]
    multiplied: Pairs

    @classmethod
    def of(cls, trajectory: Trajectory, evidence: Evidence, pairs: tuple[tuple[int, int], ...]) -> Self:
        """What comes with the evidence included."""
        evidence |= Evidence(gram=evidence.geometry)
        wanted = _wanted_products(evidence, trajectory.drift, pairs)
        return cls(trajectory, evidence, pairs, Pairs.of(trajectory.drift.points, wanted))

    def at(self, group: Group) -> dict[str, _Found]:
        """Multiply the modules' factors, and tell everything from that.

        Raises:
            NonFiniteWeightsError: NaN or Inf in a factor.
        """
        if not group.names:
            return {}
        evidence, drift = self.evidence, self.trajectory.drift
        grams = group.multiplied(self.multiplied, sums=evidence.geometry)
        if broken := grams.broken_points():
            raise self.trajectory.not_finite(*min((group.names[module], point) for module, point in broken))
        dones = done_before(drift.spans(0, len(drift.steps) - 1), grams)
        ratios, norms = _globals(grams, drift, dones, every=evidence.geometry)
        inner = gram(grams) if evidence.gram else None
        nothing = [None] * len(grams)
        triples: Sequence[ModuleTriples | None] = nothing
        parts: Sequence[ModuleParts | None] = nothing
        geometry: Sequence[ModuleGeometry | None] = nothing
        if evidence.triples:
            triples = triples_of(group, grams, drift, self.pairs, evidence.triples, dones)
        if evidence.parts:
            parts = parts_of(grams, drift, tuple(sorted(evidence.parts)), dones)
        if evidence.geometry and inner is not None:
            geometry = module_geometries(inner, entry_sums(grams), group.entries, ratios, drift)
        last = [of_module[-1] for of_module in ratios]
        grams_of_deltas = nothing if inner is None else inner
        found = map(_Found, last, norms, grams_of_deltas, triples, parts, geometry)
        return dict(zip(group.names, found, strict=True))


def _globals(
    grams: FactorGrams, drift: Drift, dones: Sequence[Done], *, every: bool
) -> tuple[list[list[float]], list[float]]:
    """Energy ratios of each module's global delta, at each step after the origin or the last; its last norm.

    sigma_1 / sum sigma, as NExt defines it (arXiv 2604.11446, Fig. 2): not squared; 0 where a delta is 0.
    """
    last = len(drift.steps) - 1
    deltas = [drift.spans(0, step) for step in range(1 if every else last, last + 1)]
    spectra = list(global_spectra(grams, deltas, dones))
    ratios = [torch.where((first := of[..., 0]) > 0, first / of.sum(dim=-1), 0.0) for of in spectra]
    return torch.cat(ratios, dim=1).tolist(), spectra[-1][:, -1].norm(dim=-1).tolist()


def _wanted_products(
    evidence: Evidence, drift: Drift, pairs: Sequence[tuple[int, int]]
) -> list[tuple[int, int]] | None:
    """Of which pairs of points the factors are multiplied; None is all."""
    if evidence.gram or evidence.parts:
        return None
    deltas = [drift.spans(0, len(drift.steps) - 1)]
    if evidence.triples:
        deltas += seen_deltas(drift, pairs, evidence.triples)
    return [(one, other) for delta in deltas for one, other in product(points_of(delta), repeat=2)]
