"""How long each stage of an attempt took, told from the moments at which its child spoke of it."""

import time
from collections.abc import Mapping

from nextrapolate.schemas import Stage


class Stopwatch:
    """Knows one stage at a time: the last one that was heard of."""

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._since = 0.0
        self._seconds: dict[Stage, float] = {}

    def hear(self, stage: Stage) -> None:
        """The child is at this stage, perhaps still."""
        if stage is not self._stage:
            self.stop()
            self._stage, self._since = stage, time.monotonic()

    def stop(self) -> Mapping[Stage, float]:
        """The last stage is over; gives the seconds of each."""
        if self._stage is not None:
            taken = self._seconds.get(self._stage, 0.0) + time.monotonic() - self._since
            self._seconds[self._stage] = taken
            self._stage = None
        return self._seconds
