"""Everything this package raises on purpose.

    NumericsError                      base; `code` is a slug for machines, str() says what to do
    ├── AdapterError                   one adapter's files cannot be used
    │   ├── UnsupportedAdapterError    a feature that is not a plain LoRA delta
    │   ├── BrokenAdapterError         missing, truncated, a pickle, or not what its config says
    │   └── NonFiniteWeightsError      NaN or Inf among the weights
    ├── SeriesError                    the adapters do not make one trajectory
    │   ├── StepOrderError             steps repeated or not ascending
    │   ├── MismatchedAdaptersError    ranks, scalings, modules or base models differ
    │   ├── JumpWithoutCheckpointError a jump after a step whose checkpoint is missing
    │   ├── TooFewCheckpointsError     less than the method needs
    │   ├── ScoreCountError            not one reward or score for each checkpoint
    │   ├── MissingCheckpointError     a step was asked for that was not saved:
    │   │   ├── LineStepError              a line through it
    │   │   └── AbsentCheckpointError      a backtest at it
    │   ├── NothingToPredictError      no module changed in what a backtest held out
    │   ├── NoBacktestError            nothing can be held out for a method and a horizon
    │   └── NothingMovedError          no module ever changed
    ├── NonFiniteResultError           a prediction or the extended adapter overflows its dtype
    └── RoundedAwayError               most of the update is lost where it is rounded to the output's dtype

All of them are the caller's to mend, and all of them survive pickling.
"""

from pathlib import Path
from typing import ClassVar


class NumericsError(Exception):
    """Base of what this package raises."""

    code: ClassVar[str] = "numerics"


class AdapterError(NumericsError):
    """One adapter's files cannot be used."""

    code = "adapter"


class UnsupportedAdapterError(AdapterError):
    """The adapter uses a feature whose effect is not a plain LoRA delta."""

    code = "unsupported-adapter"

    def __init__(self, feature: str, why: str, path: Path) -> None:
        super().__init__(feature, why, path)
        self.feature = feature
        self.why = why
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.feature} cannot be extrapolated: {self.why}."


class BrokenAdapterError(AdapterError):
    """A file of the adapter is missing, damaged, or not what its config says."""

    code = "broken-adapter"

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(path, what)
        self.path = path
        self.what = what

    def __str__(self) -> str:
        return f"{self.path}: {self.what}."


class NonFiniteWeightsError(AdapterError):
    """A factor holds NaN or Inf."""

    code = "non-finite-weights"

    def __init__(self, module: str, step: int, path: Path) -> None:
        super().__init__(module, step, path)
        self.module = module
        self.step = step
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path}: module {self.module} holds NaN or Inf at step {self.step}. "
            "The run has diverged there: extrapolate from the checkpoints before that step."
        )


class SeriesError(NumericsError):
    """The adapters do not make one trajectory."""

    code = "series"


class StepOrderError(SeriesError):
    """Steps are repeated or do not ascend."""

    code = "step-order"


class MismatchedAdaptersError(SeriesError):
    """Two adapters of the series differ in what has to be the same all along."""

    code = "mismatched-adapters"

    def __init__(self, path: Path, reference: Path, what: str) -> None:
        super().__init__(path, reference, what)
        self.path = path
        self.reference = reference
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.what}, unlike {self.reference}. "
            "A series has to come from one run: one base model, the same modules, ranks and scalings."
        )


class JumpWithoutCheckpointError(SeriesError):
    """A jump was made after a step whose own checkpoint is not in the series."""

    code = "jump-without-checkpoint"

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        return (
            f"An adapter was swapped in after step {self.step}, but the series has no checkpoint at step "
            f"{self.step}: without it, the jump cannot be separated from the drift. Add that checkpoint."
        )


class TooFewCheckpointsError(SeriesError):
    """The series is too short for the method."""

    code = "too-few-checkpoints"

    def __init__(self, method: str, have: int, need: int) -> None:
        super().__init__(method, have, need)
        self.method = method
        self.have = have
        self.need = need

    def __str__(self) -> str:
        return (
            f"{self.method} needs at least {self.need} checkpoints to learn from at this spacing and "
            f"horizon, but has {self.have}. Collect more checkpoints, shorten horizon_steps, or ask at a "
            "later step."
        )


class ScoreCountError(SeriesError):
    """Rewards or scores were given, but not one for each checkpoint."""

    code = "score-count"

    def __init__(self, name: str, have: int, need: int) -> None:
        super().__init__(name, have, need)
        self.name = name
        self.have = have
        self.need = need

    def __str__(self) -> str:
        return (
            f"There are {self.have} {self.name}, but {self.need} checkpoints to learn from. Give one for "
            "each checkpoint, in the order of their steps."
        )


class MissingCheckpointError(SeriesError):
    """A step was asked for that the series has no checkpoint of."""

    code = "missing-checkpoint"


class LineStepError(MissingCheckpointError):
    """A line was asked for through a step that it cannot go through."""

    def __init__(self, name: str, step: int, steps: tuple[int, ...]) -> None:
        super().__init__(name, step, steps)
        self.name = name
        self.step = step
        self.steps = steps

    def __str__(self) -> str:
        return f"{self.name} cannot be {self.step}: choose one of {', '.join(map(str, self.steps))}."


class AbsentCheckpointError(MissingCheckpointError):
    """A backtest needs a checkpoint that the series does not have."""

    def __init__(self, step: int, why: str, steps: tuple[int, ...]) -> None:
        super().__init__(step, why, steps)
        self.step = step
        self.why = why
        self.steps = steps

    def __str__(self) -> str:
        return (
            f"The series has no checkpoint at step {self.step}, {self.why}. It has checkpoints at "
            f"{', '.join(map(str, self.steps))}: choose two of them, and set horizon_steps to the "
            "difference."
        )


class NothingToPredictError(SeriesError):
    """No module changed between the two steps of a backtest."""

    code = "nothing-to-predict"

    def __init__(self, origin_step: int, target_step: int) -> None:
        super().__init__(origin_step, target_step)
        self.origin_step = origin_step
        self.target_step = target_step

    def __str__(self) -> str:
        return (
            f"No module changed between step {self.origin_step} and step {self.target_step}: there is "
            "nothing to compare a prediction with. Choose steps between which the run was training."
        )


class NoBacktestError(SeriesError):
    """A method cannot be held against the last steps of the series.

    Attributes:
        why: a clause.
        measurable_steps: the longest shorter horizon over which it could be; None where there is none.
    """

    code = "no-backtest"

    def __init__(self, why: str, measurable_steps: int | None) -> None:
        super().__init__(why, measurable_steps)
        self.why = why
        self.measurable_steps = measurable_steps

    @property
    def reason(self) -> str:
        """A clause that says why, and what could be measured instead."""
        if self.measurable_steps is None:
            return self.why
        return f"{self.why} (horizon {self.measurable_steps} could be measured on this run)"

    def __str__(self) -> str:
        return f"There is no backtest: {self.reason}."


class NothingMovedError(SeriesError):
    """No module changed over the whole series."""

    code = "nothing-moved"

    def __str__(self) -> str:
        return (
            "No module changed between any two checkpoints: there is no trajectory to extend. "
            "Check that the adapter was trainable and that the checkpoints are different files."
        )


class NonFiniteResultError(NumericsError):
    """A prediction or the extended adapter holds numbers that its dtype cannot."""

    code = "non-finite-result"

    def __init__(self, module: str, dtype: str) -> None:
        super().__init__(module, dtype)
        self.module = module
        self.dtype = dtype

    def __str__(self) -> str:
        return (
            f"The extended module {self.module} overflows {self.dtype}. Lower alpha, ask for float32, or "
            "choose another method."
        )


class RoundedAwayError(NumericsError):
    """Most of the update is lost where it is rounded to the output's dtype."""

    code = "update-rounded-away"

    def __init__(self, dtype: str, share: float) -> None:
        super().__init__(dtype, share)
        self.dtype = dtype
        self.share = share

    def __str__(self) -> str:
        return (
            f"Rounding to {self.dtype} would change the adapter by {self.share:.0%} of the update. Ask for "
            "float32, or jump further."
        )
