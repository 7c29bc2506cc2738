"""One campaign: a deployment, callers, and faults at random places, until every job has ended."""

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from chaos import deployment, verdict
from chaos.callers import Acknowledged, Callers
from chaos.deployment import Deployment, Size
from chaos.faults import FAULTS, Fault, Injector
from chaos.recovery import Recovery, recoveries
from chaos.verdict import Outcome
from nextrapolate_store.connection import RedisKey
from nextrapolate_store.errors import StoreUnavailable
from nextrapolate_store.queue import BROKER_LIST

_LOOK_SECONDS = 0.2
_TELL_SECONDS = 10.0


@dataclass(frozen=True)
class Plan:
    """What one campaign does.

    Attributes:
        seed: decides what happens where; not when: that is up to the machine.
        jobs: how many are submitted, beside those that faults need.
        faults: how many faults are injected.
        kinds: which.
        seconds: after which it is over, and has failed.
        longest_queue: callers submit nothing while so many jobs wait.
        size: of the deployment.
    """

    seed: int
    jobs: int
    faults: int
    kinds: tuple[str, ...] = tuple(FAULTS)
    seconds: float = 600.0
    longest_queue: int = 12
    size: Size = field(default_factory=Size)

    def deck(self) -> Iterator[str]:
        """The kinds in random order, all of them before any comes again."""
        chance = random.Random(self.seed)
        dealt = 0
        while dealt < self.faults:
            for kind in chance.sample(self.kinds, k=min(len(self.kinds), self.faults - dealt)):
                dealt += 1
                yield kind


@dataclass(frozen=True)
class Result:
    """What came of a campaign.

    Attributes:
        plan: what was to be done.
        seconds: how long it took.
        acknowledged: every job that was promised.
        faults: every fault, in order.
        recoveries: what could be measured of them.
        outcome: how the jobs ended, and every promise that was broken.
        folder: holds the logs; all else is kept only where a promise was broken.
    """

    plan: Plan
    seconds: float
    acknowledged: Sequence[Acknowledged]
    faults: Sequence[Fault]
    recoveries: Sequence[Recovery]
    outcome: Outcome
    folder: Path


def run(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Result:
    """Run a campaign in an empty folder."""
    started = time.monotonic()
    with deployment.running(folder, plan.size, plan.seed) as deployed:
        callers = Callers(deployed, plan.jobs, plan.seed, plan.longest_queue)
        injector = Injector(deployed, callers, random.Random(plan.seed), plan.size.lease_seconds)
        campaign = _Campaign(plan, deployed, callers, injector, tell)
        in_time = campaign.run()
        outcome = verdict.judge(deployed, callers.acknowledged, folder)
        measured = [*recoveries(campaign.faults, outcome.events), *campaign.noticed]
    if not in_time:
        broken = f"it was not over after {plan.seconds:g} s: {campaign.progress()}"
        outcome = replace(outcome, broken=(broken, *outcome.broken))
    if not outcome.broken:
        shutil.rmtree(folder / "data")
    seconds = time.monotonic() - started
    return Result(plan, seconds, callers.acknowledged, campaign.faults, measured, outcome, folder)


class _Campaign:
    """A campaign that is under way."""

    def __init__(
        self,
        plan: Plan,
        deployed: Deployment,
        callers: Callers,
        injector: Injector,
        tell: Callable[[str], None],
    ) -> None:
        self._plan, self._deployed, self._callers, self._injector = plan, deployed, callers, injector
        self._tell = tell
        self._deadline = time.monotonic() + plan.seconds
        self._told = time.monotonic()
        self._ended = 0
        self.faults: list[Fault] = []
        self.noticed: list[Recovery] = []

    def run(self) -> bool:
        """Inject faults while jobs come and go, then wait for the last job; False where time runs out."""
        submitting = self._callers.start()
        try:
            for number, kind in enumerate(self._plan.deck()):
                if not self._wait_for_ended(self._plan.jobs * number // (self._plan.faults + 1)):
                    return False
                self._inject(kind)
            return self._wait(lambda: self._is_over(submitting)) and self._wait(self._is_quiet)
        finally:
            self._callers.stopping.set()
            for thread in (*submitting, *self._injector.background):
                thread.join()

    def progress(self) -> str:
        """Say how far it is."""
        jobs = f"{self._ended} of {len(self._callers.acknowledged)} acknowledged jobs have ended"
        return f"seed {self._plan.seed}: {jobs}, {len(self.faults)} of {self._plan.faults} faults"

    def _inject(self, kind: str) -> None:
        fault = self._injector.inject(kind)
        self.faults.append(fault)
        if kind == "half-open":
            self._injector.along(lambda: self._notice(fault))

    def _notice(self, fault: Fault) -> None:
        gate = self._deployed.gates[fault.target]
        while not self._callers.stopping.wait(_LOOK_SECONDS):
            if gate.noticed_after is not None:
                self.noticed.append(
                    Recovery("half-open until work is taken again", fault, gate.noticed_after)
                )
                return

    def _wait(self, reached: Callable[[], bool]) -> bool:
        while time.monotonic() < self._deadline:
            with suppress(StoreUnavailable):
                if reached():
                    return True
            if time.monotonic() >= self._told + _TELL_SECONDS:
                self._told = time.monotonic()
                self._tell(self.progress())
            time.sleep(_LOOK_SECONDS)
        return False

    def _wait_for_ended(self, due: int) -> bool:
        return self._wait(lambda: self._count_ended() >= due)

    def _count_ended(self) -> int:
        self._ended = self._deployed.look.zcard(RedisKey.ENDED)
        return self._ended

    def _is_over(self, submitting: Sequence[threading.Thread]) -> bool:
        if any(thread.is_alive() for thread in (*submitting, *self._injector.background)):
            return False
        return self._count_ended() >= len(self._callers.acknowledged)

    def _is_quiet(self) -> bool:
        look = self._deployed.look
        return not (look.llen(BROKER_LIST) or look.scard(RedisKey.UNRECORDED))
