"""Updates that select entries of the full matrix, fitted to the run's rank module by module."""

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from nextrapolate_numerics.errors import NonFiniteResultError
from nextrapolate_numerics.extraction import Extraction, squared_norm
from nextrapolate_numerics.lowrank import LowRank
from nextrapolate_numerics.methods.selection import Selection
from nextrapolate_numerics.progress import Progress
from nextrapolate_numerics.update import Combination, Fitted


def fitted_selections(
    wanted: Combination,
    select: Callable[[str, LowRank], Selection],
    extraction: Extraction,
    on_progress: Progress,
    *,
    onto: Combination | None = None,
) -> Fitted:
    """Select from each module's full matrix, and fit what is left at the run's own rank.

    Args:
        wanted: the matrices, before the selection.
        select: from a module's name and its matrix, on the extraction's device.
        extraction: which modules moved, their Gram matrices, and where the factors are read.
        on_progress: told after each module.
        onto: matrices of the run's rank that the selections are added to before the fit.

    Returns:
        The fits, the squared norms being those of the selections alone.

    Raises:
        NonFiniteResultError: a fit is not within float32.
    """
    trajectory = extraction.trajectory
    factors, energies, cut = {}, {}, {}
    for count, name in enumerate(sorted(extraction.moved), start=1):
        matrix = wanted.delta(name, trajectory).to(extraction.device)
        exact, _ = matrix.truncated(matrix.rank)  # terms that cancel are gone before float32
        if not squared_norm(wanted.weights[name], extraction.grams[name]):
            exact = exact.scaled(0.0)  # or rounding would be selected from
        under = onto.delta(name, trajectory).to(extraction.device) if onto else exact
        size = _power_of_two(max(exact.norm(), under.norm()))  # at norm 1 all entries are within float32
        selection = select(name, exact.scaled(1 / size))
        if onto:
            selection = replace(selection, onto=under.scaled(1 / size))
        fit = selection.fitted(trajectory.config.rank(name))
        factors[name] = _stored(name, fit.factors.scaled(size), matrix.A)
        energies[name], cut[name] = size**2 * fit.energy, size**2 * fit.discarded
        on_progress(count / len(extraction.moved))
    return Fitted(wanted.horizon_steps, (), factors, energies, cut)


def with_loss_told(update: Fitted) -> Fitted:
    """The same, with a warning that says what it does not hold."""
    most = max(update.discarded(name) for name in sorted(update.modules()))
    warning = (
        "The selected entries form a full-rank matrix; fitting it to the run's rank discards "
        f"{update.discarded():.1%} of the squared norm of the wanted update, and {most:.1%} in the module "
        "where it discards most."
    )
    return replace(update, warnings=(warning,))


def _stored(name: str, fit: LowRank, rows: Tensor) -> LowRank:
    """Float32, on the CPU; A's rows as long as the run's, so that the factors lie where the run's do."""
    length = _power_of_two(float(rows.norm()) / len(rows) ** 0.5)
    B, A = (fit.B / length).float().cpu(), (fit.A * length).float().cpu()
    if not B.isfinite().all():
        raise NonFiniteResultError(name, "float32")
    return LowRank(B, A)


def _power_of_two(size: float) -> float:
    """The next above a size, 1 for a size of 0: to multiply by it is exact."""
    return math.ldexp(1.0, math.frexp(size)[1])
