"""What a reader of an extended adapter should know of the series, the prediction, and what was written."""

from collections.abc import Iterator, Mapping

from nextrapolate_numerics.backtest import Backtest
from nextrapolate_numerics.extension.refit import Refit
from nextrapolate_numerics.extraction import Extraction, breaks, rests
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Update

_MUCH_ROUNDED = 0.05  # share of the update
_AS_FAR = 2.0  # times the horizon, or a part of it: how far off a backtest may be asked without a word


def cautions(
    extraction: Extraction,
    update: Update,
    backtest: Backtest | None,
    refits: Mapping[str, Refit],
    *,
    all_gated: bool,
    rounding: float,
    dtype: str,
) -> Iterator[str]:
    """One sentence or two each.

    Args:
        extraction: of the whole trajectory.
        update: that was predicted from it.
        backtest: the method's, None where there is none.
        refits: by module.
        all_gated: whether the adapter is the last checkpoint for that.
        rounding: share of the update that rounding to `dtype` cost.
        dtype: of the factors on disk.
    """
    yield from extraction.trajectory.warnings
    yield from (found.warning for found in breaks(extraction))
    yield from (found.warning for found in rests(extraction))
    yield from _beyond_the_evidence(extraction.drift, update.horizon_steps)
    yield from _asked_otherwise(backtest, update.horizon_steps)
    yield from update.warnings
    if all_gated:
        yield "Every module was gated: the adapter is the last checkpoint."
    if balanced := [name for name, refit in refits.items() if not refit.in_gauge]:
        yield (
            f"{len(balanced)} modules have A = 0, so their factors could not be kept in the run's own "
            f"basis and were balanced instead: {', '.join(balanced[:3])}. Reset the optimizer's state "
            "before training on."
        )
    if rounding > _MUCH_ROUNDED:
        yield (
            f"Rounding to {dtype} changes the adapter by {rounding:.0%} of the update. Ask for float32, or "
            "jump further."
        )


def _beyond_the_evidence(drift: Drift, horizon_steps: int) -> Iterator[str]:
    """No method saw the run go as far as this, whatever it makes of what it saw."""
    seen = drift.last_step - drift.steps[0]
    if horizon_steps > seen:
        yield (
            f"The horizon of {horizon_steps} steps is {horizon_steps / seen:.1f} times the {seen} steps "
            "that this series covers; no backtest can say whether a jump that long holds. Evaluate the "
            "adapter."
        )


def _asked_otherwise(backtest: Backtest | None, horizon_steps: int) -> Iterator[str]:
    """A backtest is asked over the last pair of checkpoints, which may be much further apart, or closer."""
    if backtest is None or not horizon_steps:
        return
    asked = backtest.target_step - backtest.origin_step
    if not 1 / _AS_FAR <= asked / horizon_steps <= _AS_FAR:
        yield (
            f"The backtest predicted {asked} steps ahead, but this jump covers {horizon_steps}, so its "
            f"score says little about the jump. Save checkpoints closer together, or jump about {asked} "
            "steps."
        )
