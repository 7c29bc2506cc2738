"""A whole deployment in one folder: Redis, APIs and workers, each with a way to Redis of its own."""

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from fixtures.adapters import write_run
from hatchery import births
from hatchery.server import hatched_worker_command

from chaos.gates import Gate, Gates
from chaos.processes import Keeper, Process
from nextrapolate import NExtClient
from nextrapolate_service.server.commands import api_command_on, worker_command
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_service.wakeup import WakeUps
from nextrapolate_store.connection import Connection
from nextrapolate_store.errors import StoreUnavailable
from nextrapolate_store.keys import new_key
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

TENANT = "chaos"
STEPS = range(10, 60, 10)
_STARTING_SECONDS = 180


@dataclass(frozen=True)
class Size:
    """How large a deployment is, and how patient.

    Attributes:
        workers: processes that run jobs.
        apis: processes that serve callers, and reconcile.
        lease_seconds: how long a claim lives without a beat.
        hatchery: whether children come from one; else each imports torch itself, as in real life.
    """

    workers: int = 3
    apis: int = 2
    lease_seconds: float = 4.0
    hatchery: bool = True


@dataclass(frozen=True)
class Deployment:
    """A deployment that runs.

    Attributes:
        settings: of the store, with the direct way to Redis.
        store, look: the store and the Redis below it, by that way; for looking on.
        wake_ups: sends wake-ups by that way.
        redis, apis, workers: its processes.
        gates: their ways to Redis, by the process' name.
        urls: of the APIs.
        key: opens them.
        series: a run of `STEPS` that was uploaded.
        keeper: starts again what ends.
    """

    settings: StoreSettings
    store: Store
    look: Connection
    wake_ups: WakeUps
    redis: Process
    apis: tuple[Process, ...]
    workers: tuple[Process, ...]
    gates: Mapping[str, Gate]
    urls: tuple[str, ...]
    key: str
    series: str
    keeper: Keeper


@contextmanager
def running(folder: Path, size: Size, seed: int) -> Iterator[Deployment]:
    """Run a deployment with everything it keeps in `folder`, from ready until the block ends."""
    embedded = EmbeddedRedis.prepare(find_redis_server(None), folder / "data")
    settings = StoreSettings(embedded.url, folder / "data", lease_seconds=size.lease_seconds)
    key = new_key(TENANT)
    (folder / "api_key").write_text(key)
    (folder / "logs").mkdir()
    with ExitStack() as stack:
        keeper = Keeper(seed)
        gates = Gates()
        stack.callback(gates.close)
        stack.callback(keeper.stop)
        redis = Process("redis", embedded.command, {}, folder / "logs" / "redis")
        keeper.keep(redis)
        store = _open_store(settings)
        stack.callback(store.close)
        look = stack.enter_context(Connection.open(settings.redis_url))
        wake_ups = WakeUps(settings.redis_url)
        stack.callback(wake_ups.close)
        maker = _Maker(folder, size, settings)
        if size.hatchery:
            keeper.keep(maker.hatchery())
        listeners = [stack.enter_context(_listener()) for _ in range(size.apis)]
        apis = tuple(maker.api(number, listener) for number, listener in enumerate(listeners, 1))
        workers = tuple(maker.worker(number) for number in range(1, size.workers + 1))
        ways = {process.name: gates.open(embedded.url, maker.way(process.name)) for process in apis + workers}
        for process in apis + workers:
            keeper.keep(process)
        urls = tuple(f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in listeners)
        series = _upload(urls[0], key, folder)
        yield Deployment(
            settings, store, look, wake_ups, redis, apis, workers, ways, urls, key, series, keeper
        )


class _Maker:
    """Makes the processes of a deployment."""

    def __init__(self, folder: Path, size: Size, settings: StoreSettings) -> None:
        self._folder, self._size, self._settings = folder, size, settings
        self._hatchery = str(folder / "hatchery.sock")

    def way(self, name: str) -> Path:
        """Where the gate of a process listens."""
        return self._folder / f"{name}.sock"

    def hatchery(self) -> Process:
        command = (sys.executable, births.__file__, "keep", self._hatchery)
        return Process("hatchery", command, {"OMP_NUM_THREADS": "1"}, self._folder / "logs" / "children")

    def api(self, number: int, listener: socket.socket) -> Process:
        own = {"NEXTRAPOLATE_API_KEY_FILE": str(self._folder / "api_key")}
        return self._process(f"api-{number}", api_command_on(listener), own, (listener.fileno(),))

    def worker(self, number: int) -> Process:
        name = f"worker-{number}"
        make_command = hatched_worker_command if self._size.hatchery else worker_command
        command = make_command(f"{name}@chaos")
        own = {"NEXTRAPOLATE_DEVICE": "cpu", "NEXTRAPOLATE_THREADS": "1", "HATCHERY": self._hatchery}
        return self._process(name, command, own)

    def _process(
        self, name: str, command: tuple[str, ...], own: Mapping[str, str], inherits: tuple[int, ...] = ()
    ) -> Process:
        redis_url = self._settings.redis_url.replace(
            str(self._folder / "data" / "redis" / "redis.sock"), str(self.way(name))
        )
        environment = {
            "NEXTRAPOLATE_REDIS_URL": redis_url,
            "NEXTRAPOLATE_DATA_DIR": str(self._settings.data_dir),
            "NEXTRAPOLATE_LEASE_SECONDS": str(self._size.lease_seconds),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
            "OMP_NUM_THREADS": "1",
            **own,
        }
        return Process(name, command, environment, self._folder / "logs" / name, inherits)


@contextmanager
def _listener() -> Iterator[socket.socket]:
    """Listen here, so that callers of an API that is down wait for the next one instead of being refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        listener.set_inheritable(True)
        yield listener


def _open_store(settings: StoreSettings) -> Store:
    deadline = time.monotonic() + _STARTING_SECONDS
    while True:
        try:
            return Store.open(settings)
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _upload(url: str, key: str, folder: Path) -> str:
    """Upload a run once the API is ready; gives the id of its series."""
    deadline = time.monotonic() + _STARTING_SECONDS
    while not httpx.get(f"{url}/readyz", timeout=_STARTING_SECONDS).is_success:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url} did not get ready: see {folder / 'logs'}")
        time.sleep(0.2)
    run = write_run(folder / "run", STEPS, modules={"q_proj": (6, 4)}, rank=2)
    with NExtClient(url, key) as client:
        series = client.create_series("chaos").id
        for step in STEPS:
            client.put_checkpoint(series, step, run / f"checkpoint-{step}")
    return series
