"""Weight extrapolation: the straight line through two checkpoints, followed on (arXiv 2601.04537).

    W(t*) = W_b + (t* - t_b) / (t_e - t_b) (W_e - W_b)

on the drift: a jump is no movement. The two steps are the caller's; or e is the last checkpoint, and b is a
window before it that the caller gives, or that backtests on this run's own tail choose.

With momentum the line goes through the checkpoints as they are, jumps included. In a cycle whose window is
its period a jump then repeats the one before it and adds what training has done since:

    jump_k = horizon / window (jump_{k-1} + drift_k)

a geometric sum over all drifts so far, heavy-ball momentum (Polyak 1964) of weight horizon / window.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from nextrapolate_numerics.errors import LineStepError
from nextrapolate_numerics.extraction import Evidence, Extraction, summed
from nextrapolate_numerics.methods.tail import coming, origins, speeds, window_lengths
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Combination, Update

_DECAY = 0.5  # weight of a backtest for each 10 steps of its origin's age, as in the autoregression


@dataclass(frozen=True)
class WeightExtrapolation:
    """The line through two steps of the drift; the base model counts as step 0.

    Attributes:
        window_steps: the line ends at the last step and starts at the one nearest to this many before it;
            "auto", at the one whose line would have predicted the run so far with the least squared error,
            over all horizons up to the one asked for, recent origins weighing more.
        from_step: where the line starts instead; None leaves that to the window.
        to_step: where it ends; None is the last step.
        momentum: jumps count as movement. A backtest holds such a line, too, against the drift alone, and
            so says nothing of the jumps in it; the window is chosen by lines on the drift.

    Raises:
        ValueError: an end without a start before it.
    """

    window_steps: int | Literal["auto"] = 50
    from_step: int | None = None
    to_step: int | None = None
    momentum: bool = False

    needs: ClassVar[Evidence] = Evidence(gram=True)

    def __post_init__(self) -> None:
        if self.to_step is not None and (self.from_step is None or self.from_step >= self.to_step):
            raise ValueError("to_step needs a from_step that is smaller")

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """Any two checkpoints will do.

        Raises:
            LineStepError: the steps that were given are not there, or there is none after from_step.
        """
        for name, step, known in (
            ("from_step", self.from_step, drift.steps[:-1]),
            ("to_step", self.to_step, drift.steps),
        ):
            if step is not None and step not in known:
                raise LineStepError(name, step, known)

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """The line, relative to the last visible step.

        Where a backtest hides steps that were given, both move back together, until the later is visible.
        """
        drift = extraction.drift
        begin, end, warnings = self._ends(extraction, horizon_steps)
        start, stop = drift.steps[begin], drift.steps[end]
        reach = (drift.last_step + horizon_steps - start) / (stop - start)
        rows = drift.positions if self.momentum else drift.coefficients
        weights = rows[begin] - rows[-1] + reach * (rows[end] - rows[begin])
        on_progress(1.0)
        return Combination(horizon_steps, warnings, dict.fromkeys(extraction.moved, weights))

    def _ends(self, extraction: Extraction, horizon_steps: int) -> tuple[int, int, tuple[str, ...]]:
        """Indices of the two steps, and what to say about them."""
        drift = extraction.drift
        if self.from_step is not None:
            return *self._given(drift, self.from_step), ()
        begin, end = drift.window(self._window(extraction, horizon_steps)), len(drift.steps) - 1
        window = drift.last_step - drift.steps[begin]
        if window == self.window_steps:
            return begin, end, ()
        why = "which backtests chose" if self.window_steps == "auto" else f"not {self.window_steps}"
        return begin, end, (f"The line starts {window} steps before the last checkpoint, {why}.",)

    def _given(self, drift: Drift, from_step: int) -> tuple[int, int]:
        """Those of the steps that were given, or of the ones nearest to as many steps before them."""
        to_step = drift.last_step if self.to_step is None else self.to_step
        hidden = max(0, to_step - drift.last_step)
        end = max(1, drift.nearest(to_step - hidden))
        return min(drift.nearest(from_step - hidden), end - 1), end

    def _window(self, extraction: Extraction, horizon_steps: int) -> int:
        """The window's length in steps: as given, or of the least error in backtests of each there is."""
        if self.window_steps != "auto":
            return self.window_steps
        drift = extraction.drift
        windows = window_lengths(drift)
        inner = drift.coefficients @ summed(extraction.grams) @ drift.coefficients.T
        errors = torch.zeros(len(windows), dtype=torch.float64)
        for origin in origins(drift):
            past = speeds(drift, origin, windows)
            for end, steps, weight in coming(drift, origin, horizon_steps, _DECAY):
                residuals = steps * past
                residuals[:, end] -= 1
                residuals[:, origin] += 1
                errors += weight * ((residuals @ inner) * residuals).sum(dim=1)
        return windows[int(errors.argmin())]
