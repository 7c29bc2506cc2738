"""What goes wrong: one function for each kind of fault, which does it and tells what it hit.

Faults that need a job that runs wait a moment for one; where none comes, they hit what is idle.
"""

import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import psutil

from chaos.callers import Callers, Kind, long_request
from chaos.deployment import TENANT, Deployment
from chaos.processes import Process
from nextrapolate import NExtClient
from nextrapolate.errors import APIError, ServiceUnreachable
from nextrapolate.schemas import JobState
from nextrapolate_store.connection import RedisKey
from nextrapolate_store.errors import StoreUnavailable
from nextrapolate_store.queue import BROKER_LIST

_LOOK_SECONDS = 0.02
_PATIENCE_SECONDS = 5.0
_STARTING_SECONDS = 180.0
_LONGEST_DELAY = 0.3
"""A job that runs is hit somewhere in its first tenths of a second: it has not many more."""


@dataclass(frozen=True)
class Fault:
    """A fault that was injected.

    Attributes:
        kind: its name in `FAULTS`.
        at: Unix time.
        target: the process that it hit.
        job: the job that this process was running, where it was.
    """

    kind: str
    at: float
    target: str
    job: str | None = None


@dataclass
class Injector:
    """Everything that a fault may touch.

    Attributes:
        deployment: what is hit.
        callers: submit what faults need.
        chance: decides where.
        lease_seconds: how long a claim lives.
        background: what goes on after a fault: processes to continue, poison to be kept deadly.
    """

    deployment: Deployment
    callers: Callers
    chance: random.Random
    lease_seconds: float
    background: list[threading.Thread] = field(default_factory=list)
    submitted: int = 0

    def inject(self, kind: str) -> Fault:
        """Let a fault of this kind happen."""
        return FAULTS[kind](self)

    def busy_worker(self) -> tuple[Process, str | None]:
        """A worker that runs a job, a random moment into it; an idle one where none comes to run."""
        begun, patience = time.monotonic(), _PATIENCE_SECONDS
        while time.monotonic() < begun + patience:
            with suppress(StoreUnavailable):
                for job_id in self._held():
                    worker = self.holder(job_id)
                    if worker is not None:
                        time.sleep(self.chance.uniform(0, _LONGEST_DELAY))
                        return worker, job_id
                waits = self.deployment.look.zcard(RedisKey.QUEUED)  # for a worker that is starting
                patience = _STARTING_SECONDS if waits else _PATIENCE_SECONDS
            time.sleep(_LOOK_SECONDS)
        return self.chance.choice(self.deployment.workers), None

    def _held(self) -> list[str]:
        held = cast(list[str], self.deployment.look.zrange(RedisKey.LEASES, 0, -1))
        self.chance.shuffle(held)
        return held

    def holder(self, job_id: str) -> Process | None:
        """The worker that made the newest claim of a job; None where it is another process by now."""
        claims = [
            event for event in self.deployment.store.jobs.events(job_id, None) if event.type == "claimed"
        ]
        pid = (claims[-1].message or "").rpartition(":")[2] if claims else ""
        return next((worker for worker in self.deployment.workers if str(worker.pid) == pid), None)

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something after a while; the campaign waits for it at its end."""
        timer = threading.Timer(seconds, action)
        timer.start()
        self.background.append(timer)

    def along(self, work: Callable[[], object]) -> None:
        """Do something beside the campaign, which waits for it at its end."""
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.background.append(thread)

    def submit_long(self, kind: Kind) -> str | None:
        """Submit a job that runs until something stops it."""
        self.submitted += 1
        request = long_request(self.deployment.series)
        return self.callers.submit(request, f"{self.callers.seed}-{kind}-{self.submitted}", kind, kind)

    def state(self, job_id: str) -> JobState | None:
        """The state of a job; None where Redis is away."""
        with suppress(StoreUnavailable):
            return self.deployment.store.jobs.get(TENANT, job_id).state
        return None

    def wait_for(self, job_id: str, *states: JobState) -> bool:
        """Wait until a job is in one of these states; False where the campaign ends first."""
        while not self.callers.stopping.wait(_LOOK_SECONDS):
            if self.state(job_id) in states:
                return True
        return False


def kill_worker(injector: Injector) -> Fault:
    """SIGKILL a worker in the middle of a job."""
    worker, job_id = injector.busy_worker()
    fault = Fault("worker-kill", time.time(), worker.name, job_id)
    worker.send(signal.SIGKILL)
    return fault


def kill_child(injector: Injector) -> Fault:
    """SIGKILL the child that does a job, as the kernel does for want of memory."""
    worker, job_id = injector.busy_worker()
    fault = Fault("child-kill", time.time(), worker.name, job_id)
    _kill(worker.children())
    return fault


def stop_worker(injector: Injector) -> Fault:
    """Stop a worker for longer than two leases, then let it go on."""
    worker, job_id = injector.busy_worker()
    fault = Fault("worker-stop", time.time(), worker.name, job_id)
    pid = worker.pid
    worker.send(signal.SIGSTOP)

    def go_on() -> None:
        if worker.pid == pid:
            worker.send(signal.SIGCONT)

    injector.later(injector.lease_seconds * injector.chance.uniform(2.1, 3.0), go_on)
    return fault


def stall_child(injector: Injector) -> Fault:
    """Stop a child for some seconds, as a device that hangs does; its worker goes on beating."""
    worker, job_id = injector.busy_worker()
    fault = Fault("child-stall", time.time(), worker.name, job_id)
    children = worker.children()
    _send(children, signal.SIGSTOP)
    injector.later(injector.chance.uniform(1, 6), lambda: _send(children, signal.SIGCONT))
    return fault


def end_worker(injector: Injector) -> Fault:
    """SIGTERM a worker, as a deploy does."""
    worker, job_id = injector.busy_worker()
    fault = Fault("worker-term", time.time(), worker.name, job_id)
    worker.send(signal.SIGTERM)
    return fault


def kill_api(injector: Injector) -> Fault:
    """SIGKILL an API process, and with it a reconciler."""
    api = injector.chance.choice(injector.deployment.apis)
    fault = Fault("api-kill", time.time(), api.name)
    api.send(signal.SIGKILL)
    return fault


def kill_redis(injector: Injector) -> Fault:
    """SIGKILL Redis."""
    injector.busy_worker()
    fault = Fault("redis-kill", time.time(), injector.deployment.redis.name)
    injector.deployment.redis.send(signal.SIGKILL)
    return fault


def lose_wake_ups(injector: Injector) -> Fault:
    """Delete the broker's list, and every message in it."""
    with suppress(StoreUnavailable):
        injector.deployment.look.delete(BROKER_LIST)
    return Fault("wake-ups-lost", time.time(), "queue")


def double_wake_ups(injector: Injector) -> Fault:
    """Send a burst of wake-ups for jobs that wait, run, or have long ended."""
    known = [job.id for job in injector.callers.acknowledged]
    for job_id in injector.chance.choices(known, k=injector.chance.randint(5, 20)) if known else ():
        injector.deployment.wake_ups.send(job_id)
    return Fault("wake-ups-doubled", time.time(), "queue")


def silence_worker(injector: Injector) -> Fault:
    """Let a worker's connections fall silent: half of the time in the middle of a job."""
    busy = injector.chance.random() < 0.5
    worker, job_id = (
        injector.busy_worker() if busy else (injector.chance.choice(injector.deployment.workers), None)
    )
    fault = Fault("half-open", time.time(), worker.name, job_id)
    injector.deployment.gates[worker.name].fall_silent()
    return fault


def silence_api(injector: Injector) -> Fault:
    """Let an API's connections fall silent."""
    api = injector.chance.choice(injector.deployment.apis)
    fault = Fault("half-open-api", time.time(), api.name)
    injector.deployment.gates[api.name].fall_silent()
    return fault


def poison(injector: Injector) -> Fault:
    """Submit a job whose every child is killed."""
    at = time.time()
    job_id = injector.submit_long(Kind.POISON)

    def stay_deadly() -> None:
        while job_id and injector.wait_for(job_id, JobState.RUNNING, *_FINAL):
            if injector.state(job_id) in _FINAL:
                return
            with suppress(StoreUnavailable):
                worker = injector.holder(job_id)
                if worker is not None:
                    _kill(worker.children())

    injector.along(stay_deadly)
    return Fault("poison", at, "job", job_id)


def cancel(injector: Injector) -> Fault:
    """Cancel a job while it runs."""
    job_id = injector.submit_long(Kind.LONG)
    if job_id is None or not injector.wait_for(job_id, JobState.RUNNING):
        return Fault("cancel", time.time(), "job")
    time.sleep(injector.chance.uniform(0, _LONGEST_DELAY))
    at = time.time()
    while not injector.callers.stopping.is_set():
        url = injector.chance.choice(injector.deployment.urls)
        with (
            suppress(ServiceUnreachable, APIError),
            NExtClient(url, injector.deployment.key, timeout=_PATIENCE_SECONDS) as client,
        ):
            client.cancel(job_id)
            break
    return Fault("cancel", at, "job", job_id)


def _kill(children: list[psutil.Process]) -> None:
    _send(children, signal.SIGKILL)


def _send(children: list[psutil.Process], number: signal.Signals) -> None:
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.send_signal(number)


_FINAL = tuple(state for state in JobState if state.is_final)

FAULTS: Mapping[str, Callable[[Injector], Fault]] = {
    "worker-kill": kill_worker,
    "child-kill": kill_child,
    "worker-stop": stop_worker,
    "child-stall": stall_child,
    "worker-term": end_worker,
    "api-kill": kill_api,
    "redis-kill": kill_redis,
    "wake-ups-lost": lose_wake_ups,
    "wake-ups-doubled": double_wake_ups,
    "half-open": silence_worker,
    "half-open-api": silence_api,
    "poison": poison,
    "cancel": cancel,
}
