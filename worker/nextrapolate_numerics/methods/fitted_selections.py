"""Updates that select entries of the full matrix, fitted to the run's rank module by module."""

from collections.abc import Callable
from dataclasses import replace

from nextrapolate_numerics.extraction import Extraction
from nextrapolate_numerics.lowrank import LowRank
from nextrapolate_numerics.methods.selection import Selection
from nextrapolate_numerics.progress import Progress
from nextrapolate_numerics.update import Combination, Fitted


def fitted_selections(
    wanted: Combination,
    select: Callable[[str, LowRank], Selection],
    extraction: Extraction,
    on_progress: Progress,
) -> Fitted:
    """Select from each module's full matrix, and fit what is left at the run's own rank.

    Args:
        wanted: the matrices, before the selection.
        select: from a module's name and its matrix, on the extraction's device.
        extraction: which modules moved, and where the factors are read.
        on_progress: told after each module.

    Returns:
        The fits, the squared norms being those of the selections.
    """
    trajectory = extraction.trajectory
    factors, energies, cut = {}, {}, {}
    for count, name in enumerate(sorted(extraction.moved), start=1):
        matrix = wanted.delta(name, trajectory).to(extraction.device)
        exact, _ = matrix.truncated(matrix.rank)  # terms that cancel are gone before float32
        fit = select(name, exact).fitted(trajectory.config.rank(name))
        factors[name] = LowRank(fit.factors.B.float().cpu(), fit.factors.A.float().cpu())
        energies[name], cut[name] = fit.energy, fit.discarded
        on_progress(count / len(extraction.moved))
    return Fitted(wanted.horizon_steps, (), factors, energies, cut)


def with_loss_told(update: Fitted) -> Fitted:
    """The same, with a warning that says what it does not hold."""
    most = max(update.discarded(name) for name in sorted(update.modules()))
    warning = (
        "What was selected has full rank, and an adapter has not: fitting it to the run's rank discards "
        f"{update.discarded():.1%} of the squared norm of the wanted update, {most:.1%} in the module where "
        "it discards most."
    )
    return replace(update, warnings=(warning,))
