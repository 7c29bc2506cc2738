"""What every method is."""

from dataclasses import Field
from typing import Any, ClassVar, Protocol

from nextrapolate_numerics.extraction import Evidence, Extraction
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Update


class Method(Protocol):
    """A way to predict where a trajectory goes; each is a frozen dataclass of its parameters."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def needs(self) -> Evidence:
        """What `fit` looks at."""

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """Say whether the checkpoints will do, before any weight is read.

        Raises:
            TooFewCheckpointsError: they will not; it says how many would.
        """

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """Learn from all that is visible, and predict `horizon_steps` ahead of the last visible step.

        Modules that never moved get no update. Deterministic: the same extraction, parameters, device
        and number of threads give the same bytes.

        Raises:
            TooFewCheckpointsError: as `check`.
        """
