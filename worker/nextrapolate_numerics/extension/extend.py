"""Last checkpoint + alpha times the update, as an adapter on disk (NExt, arXiv 2604.11446, Eq. 10)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nextrapolate_numerics.backtest import Backtest
from nextrapolate_numerics.errors import NonFiniteResultError
from nextrapolate_numerics.extension.gate import GateThresholds
from nextrapolate_numerics.extension.refit import Refit, padded, refit_grown, refit_same_rank
from nextrapolate_numerics.extension.writer import write_adapter
from nextrapolate_numerics.extraction import Extraction, breaks, squared_norm
from nextrapolate_numerics.gram_svd import ROUNDING
from nextrapolate_numerics.lowrank import LowRank
from nextrapolate_numerics.parallel import MAX_MODULES, in_threads
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift, LoraConfig, Trajectory
from nextrapolate_numerics.update import Combination, Update, combine

_LARGE = 256  # rank of an update whose decomposition is worth the way to a GPU
_HELD_SHARE = 8  # modules that are refitted at a time have this part of a checkpoint's entries, at most

Rank = Literal["same", "grow"]
DType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ExtendedModule:
    """What was measured on one module, and what was done to it.

    Attributes:
        name: as in the base model.
        shape: (m, n) = (out_features, in_features).
        moved: False where the module never changed, and got exactly no update.
        gated: why the gate kept the last checkpoint; None where it did not.
        energy_ratio: sigma_1 / sum sigma of the last global delta.
        drift_norm: Frobenius norm of the last global delta.
        update_norm: Frobenius norm of alpha times the update; 0 where none was applied.
        reached_norm: Frobenius norm of the global delta with that update on top.
        discarded_energy: share of the squared norm that the refit cut off.
        update_discarded: share of the squared norm of what the method wanted that its update does not hold; 0
            where no update was applied, and for all methods whose update has a low rank by itself.
        gauge_condition: condition number of the refit's gauge, before it was bounded; None under "grow" and
            where nothing was refitted.
        backtest_cosine: of the module's backtest; None without one, or where the module rested in it.
    """

    name: str
    shape: tuple[int, int]
    moved: bool
    gated: str | None
    energy_ratio: float
    drift_norm: float
    update_norm: float
    reached_norm: float
    discarded_energy: float
    update_discarded: float
    gauge_condition: float | None
    backtest_cosine: float | None


@dataclass(frozen=True)
class Spectrum:
    """Singular values over the modules that got an update: for each index the root of their mean square.

    Attributes:
        wanted: float64, descending, of the last checkpoint with alpha times the update on top, as far as
            they are more than rounding.
        kept: those of the adapter, before it is rounded to its dtype.
    """

    wanted: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Extension:
    """The adapter that was written.

    Attributes:
        model: adapter_model.safetensors.
        config: adapter_config.json.
        modules: one entry for each module, in the order of their names.
        discarded_energy: share of the squared norm that the refits cut off, over all modules.
        update_discarded: the same of what the method wanted, before alpha and gate.
        spectrum: before and after the refit; None where no module got an update.
        warnings: what a reader of the result should know.
    """

    model: Path
    config: Path
    modules: tuple[ExtendedModule, ...]
    discarded_energy: float
    update_discarded: float
    spectrum: Spectrum | None
    warnings: tuple[str, ...]


def extend(
    extraction: Extraction,
    update: Update,
    *,
    alpha: float,
    gate: GateThresholds,
    backtest: Backtest | None,
    folder: Path,
    rank: Rank = "same",
    dtype: DType = "float32",
    on_progress: Progress = silent,
) -> Extension:
    """Write dW_c + alpha dW, module by module, as adapter_model.safetensors and adapter_config.json.

    Modules that never moved or are gated keep the last checkpoint's factors to the last bit, where `dtype` is
    the one they were saved in; under "grow" zeros are set beside them, because readers expect one rank.

    Args:
        extraction: of the whole trajectory.
        update: what a method predicted from it.
        alpha: the extending coefficient.
        gate: thresholds below which a module keeps the last checkpoint.
        backtest: the method's scores, None where there are none.
        folder: where the files go; it has to exist.
        rank: "same" is the run's rank, gauge and config, to be loaded in place; "grow" is exact, at rank r +
            the update's, for restarts.
        dtype: of the factors on disk.
        on_progress: told after each module.

    Raises:
        NonFiniteResultError: the result overflows `dtype`.
    """
    trajectory = extraction.trajectory
    gated = gate.gated(extraction, backtest if update.horizon_steps else None)

    def extended(name: str) -> tuple[ExtendedModule, Refit]:
        record, refit = _extended(name, extraction, update, alpha, gated.get(name), backtest, rank)
        return record, replace(refit, factors=_stored(name, refit.factors, getattr(torch, dtype)))

    records, refits = [], {}
    for record, refit in in_threads(extended, trajectory.module_names, _at_once(trajectory, update)):
        records.append(record)
        refits[record.name] = refit
        on_progress(len(records) / len(trajectory.module_names))
    model, config = write_adapter(folder, trajectory, _at_one_growth(refits, trajectory.config))
    return Extension(
        model=model,
        config=config,
        modules=tuple(records),
        discarded_energy=_total_discarded(refits, trajectory.config),
        update_discarded=update.discarded(),
        spectrum=_spectrum(refits, trajectory.config),
        warnings=tuple(_warnings(extraction, update, records, refits)),
    )


def _at_once(trajectory: Trajectory, update: Update) -> int:
    """How many modules are refitted at a time: a combination of many points is large, and more than once."""
    entries, largest = 0, 1
    for name, keys in trajectory.layouts[0].modules.items():
        entries += keys.r * (keys.m + keys.n)
        if name in update.modules():
            largest = max(largest, (update.rank_of(name, trajectory) + keys.r) * (keys.m + keys.n))
    return min(entries // (_HELD_SHARE * largest), MAX_MODULES)


def _extended(
    name: str,
    extraction: Extraction,
    update: Update,
    alpha: float,
    gated: str | None,
    backtest: Backtest | None,
    rank: Rank,
) -> tuple[ExtendedModule, Refit]:
    """What is told of one module, and its new factors."""
    added, update_norm, reached_norm = None, 0.0, extraction.drift_norms[name]
    if gated is None and name in update.modules():
        added, update_norm, reached_norm = _added(name, extraction, update, alpha)
    refit = _refit(name, extraction, added, rank)
    scores = backtest.modules.get(name) if backtest else None
    record = ExtendedModule(
        name=name,
        shape=refit.factors.shape,
        moved=name in extraction.moved,
        gated=gated,
        energy_ratio=extraction.energy_ratios[name],
        drift_norm=extraction.drift_norms[name],
        update_norm=update_norm,
        reached_norm=reached_norm,
        discarded_energy=refit.discarded,
        update_discarded=update.discarded(name) if added else 0.0,
        gauge_condition=refit.gauge_condition,
        backtest_cosine=scores.cosine if scores else None,
    )
    return record, refit


def _added(name: str, extraction: Extraction, update: Update, alpha: float) -> tuple[LowRank, float, float]:
    """Alpha times the update, over the LoRA scaling; the norms of `_norms`."""
    trajectory = extraction.trajectory
    delta = update.delta(name, trajectory)
    norms = _norms(name, extraction, update, alpha, delta)
    return delta.scaled(alpha / trajectory.config.scaling(name)), *norms


def _refit(name: str, extraction: Extraction, added: LowRank | None, rank: Rank) -> Refit:
    """The module's new factors; where nothing is added, those of the last checkpoint as they are."""
    trajectory = extraction.trajectory
    own = LowRank(*(factor.read() for factor in trajectory.layouts[trajectory.last].factors(name)))
    if added is None:
        return Refit(own, own.norm(), 0.0, None, in_gauge=True)
    refit = refit_grown if rank == "grow" else refit_same_rank
    device = extraction.device if added.rank >= _LARGE else torch.device("cpu")
    return refit(added.to(device), own.to(device))


def _norms(
    name: str, extraction: Extraction, update: Update, alpha: float, delta: LowRank
) -> tuple[float, float]:
    """Of alpha times the update, and of the global delta with that on top."""
    drift = extraction.drift.coefficients[-1]
    if isinstance(update, Combination) and name in extraction.grams:
        gram = extraction.grams[name]
        added = alpha * update.weights[name]
        return squared_norm(added, gram) ** 0.5, squared_norm(drift + added, gram) ** 0.5
    points = drift.nonzero().flatten().tolist()
    start = combine(extraction.trajectory, name, points, drift[points])
    applied = delta.scaled(alpha)
    return applied.norm(), (start + applied).norm()


def _stored(name: str, factors: LowRank, dtype: torch.dtype) -> LowRank:
    stored = LowRank(factors.B.cpu().to(dtype), factors.A.cpu().to(dtype))
    if not (stored.B.isfinite().all() and stored.A.isfinite().all()):
        raise NonFiniteResultError(name, str(dtype).removeprefix("torch."))
    return stored


def _at_one_growth(refits: Mapping[str, Refit], config: LoraConfig) -> dict[str, LowRank]:
    """All modules grown by as much as the one that grew most, 0 under "same"."""
    growth = max(refit.factors.rank - config.rank(name) for name, refit in refits.items())
    return {name: padded(refit.factors, config.rank(name) + growth) for name, refit in refits.items()}


def _total_discarded(refits: Mapping[str, Refit], config: LoraConfig) -> float:
    energies = {name: (refit.wanted * config.scaling(name)) ** 2 for name, refit in refits.items()}
    cut = sum(refit.discarded * energies[name] for name, refit in refits.items())
    return cut / sum(energies.values()) if cut > 0 else 0.0


def _spectrum(refits: Mapping[str, Refit], config: LoraConfig) -> Spectrum | None:
    found = {name: refit for name, refit in refits.items() if len(refit.spectrum)}
    if not found:
        return None
    wanted = torch.zeros(
        len(found), max(len(refit.spectrum) for refit in found.values()), dtype=torch.float64
    )
    kept = wanted.clone()
    for row, (name, refit) in enumerate(found.items()):
        wanted[row, : len(refit.spectrum)] = config.scaling(name) * refit.spectrum.cpu()
        kept[row, : refit.kept] = wanted[row, : refit.kept]
    wanted, kept = (values.square().mean(dim=0).sqrt() for values in (wanted, kept))
    count = int((wanted > ROUNDING * wanted[0]).sum())
    return Spectrum(wanted[:count], kept[:count]) if count else None


def _beyond_the_evidence(drift: Drift, horizon_steps: int) -> Iterator[str]:
    """No method saw the run go as far as this, whatever it makes of what it saw."""
    seen = drift.last_step - drift.steps[0]
    if horizon_steps > seen:
        yield (
            f"The horizon of {horizon_steps} steps is {horizon_steps / seen:.1f} times the {seen} steps that "
            "were seen of the run: nothing measured on it says how far it holds. Shorten horizon_steps."
        )


def _warnings(
    extraction: Extraction, update: Update, records: Sequence[ExtendedModule], refits: Mapping[str, Refit]
) -> Iterator[str]:
    """Of the series, of the prediction, and of the adapter."""
    yield from extraction.trajectory.warnings
    yield from (found.warning for found in breaks(extraction))
    yield from _beyond_the_evidence(extraction.drift, update.horizon_steps)
    yield from update.warnings
    if all(record.gated or not record.moved for record in records):
        yield "Every module was gated: the adapter is the last checkpoint."
    if balanced := [name for name, refit in refits.items() if not refit.in_gauge]:
        yield (
            f"{len(balanced)} modules have no gauge to keep (their A is 0), and have balanced factors: "
            f"{', '.join(balanced[:3])}. Reset the optimizer's state before training on."
        )
