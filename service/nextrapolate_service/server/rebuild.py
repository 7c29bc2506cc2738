"""`nextrapolate-server rebuild`: Redis, brought back from the records in the data folder."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nextrapolate_service.server.data_folder import DEFAULT_DATA_DIR, DataFolder
from nextrapolate_service.server.errors import PartFailedError
from nextrapolate_service.server.leash import leashed
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_store.connection import Connection
from nextrapolate_store.errors import StoreUnavailable
from nextrapolate_store.rebuild import Rebuilt
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store


def rebuild_store(data_dir: Path | None, redis_server: Path | None, *, add_missing: bool) -> Rebuilt:
    """Rebuild the Redis that the environment names; without one, that of the embedded server in `data_dir`.

    Args:
        data_dir: goes before the environment.
        redis_server: the program for the embedded Redis; None looks for one.
        add_missing: go on where Redis has data.

    Raises:
        StoreError: it cannot be done, or nobody said that it is meant.
        StartupError: the embedded server runs, or its Redis does not, or there is none on this machine.
        ValueError: a setting is not what it should be.
    """
    if data_dir is None and os.environ.get("NEXTRAPOLATE_REDIS_URL"):
        return Store.rebuild(StoreSettings.from_environment(), add_missing=add_missing)
    folder = DataFolder((data_dir or DEFAULT_DATA_DIR).absolute())
    if not folder.path.is_dir():
        raise ValueError(f"{folder.path} is not a folder: give the --data-dir that the server used")
    with folder.locked():
        redis = EmbeddedRedis.prepare(find_redis_server(redis_server), folder.path)
        with _running(redis, folder.logs / "redis.log"):
            return Store.rebuild(StoreSettings(redis.url, folder.path), add_missing=add_missing)


@contextmanager
def _running(redis: EmbeddedRedis, log: Path) -> Iterator[None]:
    with log.open("ab") as output, Connection.open(redis.url) as connection:
        process = subprocess.Popen(leashed(redis.command), stdout=output, stderr=output)  # noqa: S603
        try:
            while not _answers(connection):
                if process.poll() is not None:
                    raise PartFailedError(f"redis ended with exit code {process.returncode}: see {log}")
            yield
        finally:
            process.terminate()
            process.wait()


def _answers(connection: Connection) -> bool:
    """Reading its own file may take it long."""
    try:
        return bool(connection.ping())
    except StoreUnavailable:
        return False
