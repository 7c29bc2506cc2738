"""One pass over the files: from factors to what a method learns from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from nextrapolate_numerics.errors import NothingMovedError
from nextrapolate_numerics.extraction.before_jumps import Done, done_before
from nextrapolate_numerics.extraction.decompositions import global_spectra
from nextrapolate_numerics.extraction.deltas import points_of
from nextrapolate_numerics.extraction.extraction import Evidence, Extraction
from nextrapolate_numerics.extraction.gram import FactorGrams, Pairs, entry_sums, gram
from nextrapolate_numerics.extraction.groups import Multiplied, groups
from nextrapolate_numerics.extraction.module_geometry import ModuleGeometry, module_geometry
from nextrapolate_numerics.extraction.parts import ModuleParts, parts_of
from nextrapolate_numerics.extraction.triples import ModuleTriples, seen_deltas, triples_of
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
    evidence |= Evidence(gram=evidence.geometry)
    drift = trajectory.drift
    pairs = drift.pairs(horizon_steps)
    multiplied = Pairs.of(drift.points, _wanted_products(evidence, drift, pairs))
    numbers = {name: number for number, name in enumerate(trajectory.module_names, start=1)}
    found = _Found(evidence, drift, pairs)
    for group in groups(trajectory, multiplied, torch.device(device), sums=evidence.geometry):
        found.learn(group)
        on_progress(numbers[group[-1].name] / len(numbers))
        del group  # its inner products make room for the next ones
    trajectory.forget()
    on_progress(1.0)
    if not found.norms:
        raise NothingMovedError
    return Extraction(
        trajectory,
        drift,
        horizon_steps,
        pairs,
        frozenset(found.norms),
        dict.fromkeys(trajectory.module_names, 0.0) | found.energy_ratios,
        dict.fromkeys(trajectory.module_names, 0.0) | found.norms,
        found.grams,
        found.triples,
        found.parts,
        found.geometry,
        torch.device(device),
    )


@dataclass(frozen=True)
class _Found:
    """What was found so far, by the names of the modules that moved."""

    evidence: Evidence
    drift: Drift
    pairs: tuple[tuple[int, int], ...]
    energy_ratios: dict[str, float] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    grams: dict[str, Tensor] = field(default_factory=dict)
    triples: dict[str, ModuleTriples] = field(default_factory=dict)
    parts: dict[str, ModuleParts] = field(default_factory=dict)
    geometry: dict[str, ModuleGeometry] = field(default_factory=dict)

    def learn(self, group: Sequence[Multiplied]) -> None:
        """All that is wanted of some modules."""
        evidence, drift = self.evidence, self.drift
        names, products = [module.name for module in group], [module.products for module in group]
        dones = done_before(drift.spans(0, len(drift.steps) - 1), products)
        of_globals = _globals(products, drift, dones, every=evidence.geometry)
        for name, (ratios, norm) in zip(names, of_globals, strict=True):
            self.energy_ratios[name], self.norms[name] = ratios[-1], norm
        if evidence.gram:
            self.grams.update(zip(names, map(gram, products), strict=True))
        if evidence.triples:
            stacked = [(module.stack, module.products) for module in group]
            found = triples_of(stacked, drift, self.pairs, evidence.triples, dones)
            self.triples.update(zip(names, found, strict=True))
        if evidence.parts:
            parts = parts_of(products, drift, tuple(sorted(evidence.parts)), dones)
            self.parts.update(zip(names, parts, strict=True))
        if evidence.geometry:
            for module, (ratios, _) in zip(group, of_globals, strict=True):
                sums, entries = entry_sums(module.products), module.stack.entries
                inner = self.grams[module.name]
                self.geometry[module.name] = module_geometry(inner, sums, entries, ratios, drift)


def _globals(
    modules: Sequence[FactorGrams], drift: Drift, dones: Sequence[Done], *, every: bool
) -> list[tuple[list[float], float]]:
    """Energy ratios of each module's global delta, at each step after the origin or the last; its last norm.

    sigma_1 / sum sigma, as NExt defines it (arXiv 2604.11446, Fig. 2): not squared; 0 where a delta is 0.
    """
    last = len(drift.steps) - 1
    deltas = [drift.spans(0, step) for step in range(1 if every else last, last + 1)]
    return [
        (
            [float(values[0] / values.sum()) if values[0] > 0 else 0.0 for values in spectra],
            float(spectra[-1].norm()),
        )
        for spectra in global_spectra(modules, deltas, dones)
    ]


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
