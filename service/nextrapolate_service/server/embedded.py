"""All of nextrapolate on one machine: a private Redis, the workers, and the API on 127.0.0.1."""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import httpx
from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import ValidationError
from redis.exceptions import RedisError

from nextrapolate.schemas import Readiness
from nextrapolate.wire.servers import DEFAULT_URL
from nextrapolate_service.auth import read_key_file
from nextrapolate_service.server.commands import api_command_on, worker_command
from nextrapolate_service.server.data_folder import DataFolder
from nextrapolate_service.server.errors import PortInUseError
from nextrapolate_service.server.noted_servers import note_server
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_service.server.supervisor import Part, Tell, supervise
from nextrapolate_store.errors import StoreUnavailable
from nextrapolate_store.queue import celery_settings
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

HOST = "127.0.0.1"

_PATIENCE_SECONDS = 1.0
"""How long a part may take to answer before it is asked again."""
_SILENCE = "it does not answer"


def run_embedded(
    *, data_dir: Path, port: int, workers: int | None, redis_server: Path | None, tell: Tell
) -> None:
    """Run everything until SIGINT or SIGTERM.

    Args:
        data_dir: what is kept lies there; made where it is missing.
        port: 0 takes a free one.
        workers: None means one for each GPU, or one where there is none.
        redis_server: None looks for one.
        tell: takes what the person at the terminal should know.

    Raises:
        StartupError: it could not be started.
        StoreError: this Redis, or the data, is of another version, or Redis has lost its data.
        OSError: a folder cannot be written.
    """
    folder = DataFolder(data_dir.absolute())
    gpus = visible_gpus()
    redis_program = find_redis_server(redis_server)
    if not folder.path.exists():
        _listen(port).close()  # a start that is refused leaves no folder behind
    with folder.locked(), _listen(port) as listener:
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        new_key = folder.make_key()
        redis = EmbeddedRedis.prepare(redis_program, folder.path)
        count = workers or len(gpus) or 1
        note_server(url, folder.api_key)
        tell(f"starting Redis, {count} worker{'s' if count > 1 else ''} and the API")

        def on_ready() -> None:
            tell(f"nextrapolate is ready on {url}")
            tell(f"key: {folder.api_key}")
            if new_key and sys.stdout.isatty():  # anywhere else it would end up in a log
                tell(f"     {new_key} (shown this once)")
            tell(f"logs: {folder.logs}/")
            if url != DEFAULT_URL:
                tell(f"for clients: export NEXTRAPOLATE_URL={url}")
            if sys.stdout.isatty():
                way_in = f"{url}/login?invitation={_invitation(folder, redis)}"
                tell(f"pages: {way_in} (this link works once, within the next hour)")
            for sentence in _what_is_refused(url):
                tell(sentence)

        asyncio.run(supervise(_stages(folder, redis, listener, url, count, gpus), tell, on_ready))


def _invitation(folder: DataFolder, redis: EmbeddedRedis) -> str:
    """Let the browser of whoever sits at this terminal in, without a key to copy."""
    with closing(Store.open(StoreSettings(redis.url, folder.path))) as store:
        return store.sessions.invite(store.keys.get(read_key_file(folder.api_key).id))


def visible_gpus() -> list[str]:
    """Ids of the NVIDIA GPUs that this process may use, without loading anything that would claim one."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu for gpu in chosen.split(",") if gpu]
    devices = Path("/dev").glob("nvidia[0-9]*")
    return sorted((device.name.removeprefix("nvidia") for device in devices), key=int)


def _stages(
    folder: DataFolder, redis: EmbeddedRedis, listener: socket.socket, url: str, workers: int, gpus: list[str]
) -> list[list[Part]]:
    store = StoreSettings(redis.url, folder.path)
    environment = {
        "NEXTRAPOLATE_REDIS_URL": redis.url,
        "NEXTRAPOLATE_DATA_DIR": str(folder.path),
        # Whoever runs everything on one machine reads the logs himself.
        "NEXTRAPOLATE_LOG_FORMAT": os.environ.get("NEXTRAPOLATE_LOG_FORMAT") or "text",
    }
    own_redis = Part(
        "redis", redis.command, folder.logs / "redis.log", obstacle=lambda: _redis_obstacle(store)
    )
    api = Part(
        "the API",
        api_command_on(listener),
        folder.logs / "api.log",
        obstacle=lambda: _api_obstacle(url),
        environment={
            **environment,
            "NEXTRAPOLATE_FILE_ROOTS": os.environ.get("NEXTRAPOLATE_FILE_ROOTS") or str(Path.cwd()),
            "NEXTRAPOLATE_API_KEY_FILE": str(folder.api_key),
        },
        inherits=(listener.fileno(),),
    )
    return [[own_redis], [*(_worker(n, folder, redis, environment, gpus) for n in range(workers)), api]]


def _worker(
    number: int, folder: DataFolder, redis: EmbeddedRedis, environment: dict[str, str], gpus: Sequence[str]
) -> Part:
    name = f"worker-{number + 1}"
    node = f"{name}@embedded"
    gpu = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
    return Part(
        name,
        worker_command(node),
        folder.logs / f"{name}.log",
        obstacle=lambda: _worker_obstacle(redis.url, node),
        environment={**environment, **gpu},
    )


def _listen(port: int) -> socket.socket:
    """Listen here and not in the API, so that callers wait through its restarts instead of being refused."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise PortInUseError(
            f"cannot listen on {HOST}:{port} ({error.strerror}): choose another --port, 0 picks a free one"
        ) from None
    return listener


def _redis_obstacle(settings: StoreSettings) -> str | None:
    """Say why Redis is of no use yet: it has to take writes, or workers would end for want of them."""
    try:
        with closing(Store.open(settings)) as store:
            store.ping()
    except StoreUnavailable as error:
        return str(error)
    return None


def _api_obstacle(url: str) -> str | None:
    """Say why the API is of no use yet: it has to have its store, so that callers are let in and can read.

    A disk with too little room is no reason: whoever has to make some looks at what is there, and deletes.
    """
    readiness = _readiness(url)
    if readiness is None:
        return _SILENCE
    return None if readiness.checks["redis"] == "ok" else readiness.checks["redis"]


def _what_is_refused(url: str) -> list[str]:
    readiness = _readiness(url)
    if readiness is None or readiness.ready:
        return []
    reasons = "; ".join(reason for reason in readiness.checks.values() if reason != "ok")
    return [
        f"nothing new is accepted: {reasons}",
        "existing data can still be read, downloaded and deleted; new work is accepted once this is fixed",
    ]


def _readiness(url: str) -> Readiness | None:
    """Ask the API; None where it does not answer, or not that."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=_PATIENCE_SECONDS, trust_env=False)
        return Readiness.model_validate_json(answer.content)
    except (httpx.TransportError, ValidationError):
        return None


def _worker_obstacle(redis_url: str, node: str) -> str | None:
    with Celery("nextrapolate", set_as_current=False) as celery:
        celery.conf.update(celery_settings(redis_url))
        try:
            answers = celery.control.ping(destination=[node], timeout=_PATIENCE_SECONDS)
        except (OperationalError, RedisError) as error:  # Redis is gone again, or takes no writes any more
            return f"it cannot be asked ({error})"
    return None if answers else _SILENCE
