"""Progress and cost of a job, stage by stage."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from nextrapolate.schemas import Stage, StageProfile
from nextrapolate_numerics import Cost
from nextrapolate_worker.memory import Heap


class Profile:
    """Keeps the seconds of each stage, and tells how far the whole job has come.

    Args:
        tell: told the stage and the share of the whole job that is done.
        shares: about how much of the job's time each stage takes; only the progress bar depends on it.

    Attributes:
        seconds: of each stage that has ended, in order.
    """

    def __init__(self, tell: Callable[[Stage, float], None], shares: Mapping[Stage, float]) -> None:
        self._tell = tell
        self._shares = shares
        self._behind = 0.0
        self.seconds: dict[Stage, float] = {}
        self._costs: dict[Stage, Cost] = {}
        self._heap = Heap()

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[Callable[[float], None]]:
        """Time a stage; gives the callback to which the stage says how much of it is done, from 0 to 1."""
        self._heap.trim()  # what the stage before let go of would count beside the pages that this one reads
        started = time.monotonic()
        share = self._shares[stage]
        self._tell(stage, self._behind)

        def on_progress(fraction: float) -> None:
            self._heap.tidy()
            self._tell(stage, self._behind + share * min(max(fraction, 0.0), 1.0))

        yield on_progress
        self._behind += share
        self.seconds[stage] = time.monotonic() - started

    def count(self, stage: Stage, cost: Cost) -> None:
        """What a stage has read and multiplied; one that found an earlier result did neither."""
        self._costs[stage] = cost

    @property
    def stages(self) -> list[StageProfile]:
        """The same with what each has cost."""
        return [self._profile(stage, seconds) for stage, seconds in self.seconds.items()]

    def _profile(self, stage: Stage, seconds: float) -> StageProfile:
        cost = self._costs.get(stage)
        if cost is None:
            return StageProfile(stage=stage, seconds=seconds)
        rate = cost.flops / seconds if cost.flops else None
        return StageProfile(stage=stage, seconds=seconds, bytes_read=cost.bytes_read, flop_rate=rate)
