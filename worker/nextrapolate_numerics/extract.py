"""One pass over the files: from factors to what a method learns from."""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from nextrapolate_numerics.decompositions import global_spectra
from nextrapolate_numerics.deltas import points_of
from nextrapolate_numerics.done import Done, done_before
from nextrapolate_numerics.drift import Drift
from nextrapolate_numerics.errors import NothingMovedError
from nextrapolate_numerics.extraction import Evidence, Extraction
from nextrapolate_numerics.gram import FactorGrams, Pairs, entry_sums, gram
from nextrapolate_numerics.methods.method import Method
from nextrapolate_numerics.module_geometry import ModuleGeometry, module_geometry
from nextrapolate_numerics.parts import ModuleParts, module_parts
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.stack import stacks
from nextrapolate_numerics.trajectory import ModuleFactors, Trajectory
from nextrapolate_numerics.triples import ModuleTriples, module_triples, seen_deltas


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
    device = torch.device(device)
    pairs = drift.pairs(horizon_steps)
    moved: set[str] = set()
    grams: dict[str, Tensor] = {}
    triples: dict[str, ModuleTriples] = {}
    parts: dict[str, ModuleParts] = {}
    geometry: dict[str, ModuleGeometry] = {}
    energy_ratios, drift_norms = (dict.fromkeys(trajectory.module_names, 0.0) for _ in range(2))
    multiplied = Pairs.of(drift.points, _wanted_products(evidence, drift, pairs))
    numbers = {name: number for number, name in enumerate(trajectory.module_names, start=1)}
    for name, stack in stacks(_moving(trajectory), device):
        moved.add(name)
        products = FactorGrams.of(stack, multiplied, sums=evidence.geometry)
        if broken := products.broken_points():
            raise trajectory.not_finite(name, broken[0])
        dones = done_before(drift.spans(0, len(drift.steps) - 1), products)
        ratios, drift_norms[name] = _globals(products, drift, dones, every=evidence.geometry)
        energy_ratios[name] = ratios[-1]
        if evidence.gram:
            grams[name] = gram(products)
        if evidence.triples:
            triples[name] = module_triples(stack, products, drift, pairs, dones)
        if evidence.parts:
            parts[name] = module_parts(products, drift, tuple(sorted(evidence.parts)), dones)
        if evidence.geometry:
            geometry[name] = module_geometry(grams[name], entry_sums(products), stack.entries, ratios, drift)
        on_progress(numbers[name] / len(numbers))
    on_progress(1.0)
    if not moved:
        raise NothingMovedError
    return Extraction(
        trajectory,
        drift,
        horizon_steps,
        pairs,
        frozenset(moved),
        energy_ratios,
        drift_norms,
        grams,
        triples,
        parts,
        geometry,
        device,
    )


def _moving(trajectory: Trajectory) -> Iterator[tuple[str, ModuleFactors]]:
    """The modules whose delta changed at all."""
    for name, factors in trajectory.modules():
        if not all(factors.is_still(start, end) for start, end in trajectory.drift.segments):
            yield name, factors
        del factors  # as long as one tensor of them is held, the files stay mapped


def _globals(
    products: FactorGrams, drift: Drift, dones: Sequence[Done], *, every: bool
) -> tuple[list[float], float]:
    """Energy ratios of the global delta, at each step after the origin or the last alone; and its last norm.

    sigma_1 / sum sigma, as NExt defines it (arXiv 2604.11446, Fig. 2): not squared; 0 where a delta is 0.
    """
    last = len(drift.steps) - 1
    deltas = [drift.spans(0, step) for step in range(1 if every else last, last + 1)]
    found = global_spectra(products, deltas, dones)
    ratios = [float(values[0] / values.sum()) if values[0] > 0 else 0.0 for values in found]
    return ratios, float(found[-1].norm())


def _wanted_products(
    evidence: Evidence, drift: Drift, pairs: Sequence[tuple[int, int]]
) -> list[tuple[int, int]] | None:
    """Of which pairs of points the factors are multiplied; None is all."""
    if evidence.gram or evidence.parts:
        return None
    deltas = [drift.spans(0, len(drift.steps) - 1)]
    if evidence.triples:
        deltas += seen_deltas(drift, pairs)
    return [(one, other) for delta in deltas for one, other in product(points_of(delta), repeat=2)]
