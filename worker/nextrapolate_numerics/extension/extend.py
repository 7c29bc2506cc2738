"""Last checkpoint + alpha times the update, as an adapter on disk (NExt, arXiv 2604.11446, Eq. 10)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nextrapolate_numerics.backtest import Backtest
from nextrapolate_numerics.errors import NonFiniteResultError, RoundedAwayError
from nextrapolate_numerics.extension.cautions import cautions
from nextrapolate_numerics.extension.gate import GateThresholds
from nextrapolate_numerics.extension.refit import Refit, padded, refit_grown, refit_same_rank
from nextrapolate_numerics.extension.writer import write_adapter
from nextrapolate_numerics.extraction import Extraction, squared_norm
from nextrapolate_numerics.gram_svd import ROUNDING
from nextrapolate_numerics.lowrank import LowRank
from nextrapolate_numerics.parallel import MAX_MODULES, in_threads
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import LoraConfig, Trajectory
from nextrapolate_numerics.update import Combination, Update, combine

_LARGE = 256  # rank of an update whose decomposition is worth the way to a GPU
_LOST = 0.5  # share of the update that rounding has to leave
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
        rounding: norm of what rounding to the dtype changed in modules that got an update, over that of the
            update; 0 of float32.
        spectrum: before and after the refit; None where no module got an update.
        warnings: what a reader of the result should know.
    """

    model: Path
    config: Path
    modules: tuple[ExtendedModule, ...]
    discarded_energy: float
    update_discarded: float
    rounding: float
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
        RoundedAwayError: half of the update or more is lost where it is rounded to `dtype`.
        NonFiniteWeightsError: NaN or Inf in a tensor of the last checkpoint that is no factor.
    """
    trajectory = extraction.trajectory
    gated = gate.gated(extraction, backtest if update.horizon_steps else None)
    records, refits, rounding = _all_extended(
        extraction, update, alpha, gated, backtest, rank, dtype, on_progress
    )
    if rounding >= _LOST:
        raise RoundedAwayError(dtype, rounding)
    model, config = write_adapter(folder, trajectory, _at_one_growth(refits, trajectory.config))
    return Extension(
        model=model,
        config=config,
        modules=tuple(records),
        discarded_energy=_total_discarded(refits, trajectory.config),
        update_discarded=update.discarded(),
        rounding=rounding,
        spectrum=_spectrum(refits, trajectory.config),
        warnings=tuple(
            cautions(
                extraction,
                update,
                backtest,
                refits,
                all_gated=all(record.gated or not record.moved for record in records),
                rounding=rounding,
                dtype=dtype,
            )
        ),
    )


def _all_extended(
    extraction: Extraction,
    update: Update,
    alpha: float,
    gated: Mapping[str, str],
    backtest: Backtest | None,
    rank: Rank,
    dtype: DType,
    on_progress: Progress,
) -> tuple[list[ExtendedModule], dict[str, Refit], float]:
    """What is told of each module, its new factors in their dtype, and what rounding cost (`Extension`)."""
    trajectory = extraction.trajectory

    def extended(name: str) -> tuple[ExtendedModule, Refit, float]:
        record, refit = _extended(name, extraction, update, alpha, gated.get(name), backtest, rank)
        stored = _stored(name, refit.factors, getattr(torch, dtype))
        changed = _rounding(stored, refit.factors) if record.update_norm else 0.0
        return record, replace(refit, factors=stored), changed * trajectory.config.scaling(name)

    records, refits, changes = [], {}, []
    for record, refit, changed in in_threads(extended, trajectory.module_names, _at_once(trajectory, update)):
        records.append(record)
        refits[record.name] = refit
        changes.append(changed)
        on_progress(len(records) / len(trajectory.module_names))
    added = math.hypot(*(record.update_norm for record in records))
    return records, refits, math.hypot(*changes) / added if added else 0.0


def _at_once(trajectory: Trajectory, update: Update) -> int:
    """How many modules are refitted at a time: a combination of many points is large."""
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
    trajectory = extraction.trajectory
    own = LowRank(*(factor.read() for factor in trajectory.layouts[trajectory.last].factors(name)))
    if updated := gated is None and name in update.modules():
        refit, update_norm, reached_norm = _refit(name, extraction, update, alpha, own, rank)
    else:
        refit = Refit(own, own.norm(), 0.0, None, in_gauge=True)
        update_norm, reached_norm = 0.0, extraction.drift_norms[name]
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
        update_discarded=update.discarded(name) if updated else 0.0,
        gauge_condition=refit.gauge_condition,
        backtest_cosine=scores.cosine if scores else None,
    )
    return record, refit


def _refit(
    name: str, extraction: Extraction, update: Update, alpha: float, own: LowRank, rank: Rank
) -> tuple[Refit, float, float]:
    """The last checkpoint's factors with alpha times the update; its norm, and the global delta's then."""
    trajectory, norms = extraction.trajectory, None
    if isinstance(update, Combination) and name in extraction.grams:
        norms = _norms_of_weights(name, extraction, alpha * update.weights[name])
        if rank == "same":
            wanted = update.onto_last(name, trajectory, alpha)
            device = _device(extraction, wanted)
            return refit_same_rank(wanted.to(device), own.to(device)), *norms
    delta = update.delta(name, trajectory).scaled(alpha)
    norms = norms or _norms(name, extraction, delta)
    added = delta.scaled(1 / trajectory.config.scaling(name))
    device = _device(extraction, added)
    if rank == "grow":
        return refit_grown(added.to(device), own.to(device)), *norms
    return refit_same_rank((own.double() + added).to(device), own.to(device)), *norms


def _device(extraction: Extraction, matrix: LowRank) -> torch.device:
    return extraction.device if matrix.rank >= _LARGE else torch.device("cpu")


def _norms_of_weights(name: str, extraction: Extraction, weights: Tensor) -> tuple[float, float]:
    """Of the combination of points (p,), and of the global delta with that on top."""
    gram, drift = extraction.grams[name], extraction.drift.coefficients[-1]
    return squared_norm(weights, gram) ** 0.5, squared_norm(drift + weights, gram) ** 0.5


def _norms(name: str, extraction: Extraction, delta: LowRank) -> tuple[float, float]:
    """Of the delta, and of the global delta with that on top."""
    drift = extraction.drift.coefficients[-1]
    points = drift.nonzero().flatten().tolist()
    start = combine(extraction.trajectory, name, points, drift[points])
    return delta.norm(), (start + delta).norm()


def _stored(name: str, factors: LowRank, dtype: torch.dtype) -> LowRank:
    stored = LowRank(factors.B.cpu().to(dtype), factors.A.cpu().to(dtype))
    if not (stored.B.isfinite().all() and stored.A.isfinite().all()):
        raise NonFiniteResultError(name, str(dtype).removeprefix("torch."))
    return stored


def _rounding(stored: LowRank, wanted: LowRank) -> float:
    """Norm of the difference; that of float32 is not worth its two decompositions."""
    if stored.B.dtype is torch.float32:
        return 0.0
    return (stored.double() + wanted.to(torch.device("cpu")).scaled(-1)).norm()


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
