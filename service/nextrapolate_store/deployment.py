"""Which Redis and which data folder belong together: both hold one random id, from their first meeting on.

    {data_dir}/deployment

A folder that is not mounted looks like a new one, and another host may have another one in its place. Taken
for the deployment's own, it would get records that the right one lacks, and jobs would fail for want of files
that lie on the right one. So the folder is looked at before anything is written into it or swept from it; and
as `complete` alone makes its parts, nothing can be written where it goes away between that look and the file.
"""

import secrets
from pathlib import Path
from typing import cast

from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.errors import StoreMismatched
from nextrapolate_store.files import make_folder, write_once

_PARTS = ("blobs", "credentials", "fetched", "jobs", "keys", "series", "tenants")


_FILE = "deployment"


def require_mark(data_dir: Path) -> None:
    """See that a folder is some deployment's, and not where one is to be mounted.

    Raises:
        FileNotFoundError: it is not.
    """
    (data_dir / _FILE).stat()


class Deployment:
    """The id in Redis, and the id in the folder."""

    def __init__(self, redis: Connection, data_dir: Path) -> None:
        self._redis = redis
        self._data_dir = data_dir.absolute()
        self._path = self._data_dir / _FILE

    def check(self) -> None:
        """Check that the folder is the one that Redis knows, if it knows any.

        Raises:
            StoreMismatched: it is not.
        """
        known, here = cast(str | None, self._redis.get(RedisKey.DEPLOYMENT)), self._here()
        if known is not None and known != here:
            raise StoreMismatched(
                f"{self._data_dir} is not the data folder of this Redis (it is of deployment "
                f"{here or 'none'}, Redis of {known}): mount the right one, or give this one a Redis of "
                f"its own; to use this one from now on, write {known} into {self._path}"
            )

    def join(self) -> None:
        """Check it, and where Redis knows none, as in a new deployment, have this folder be the one.

        Raises:
            StoreMismatched: Redis knows another.
        """
        if not self._redis.exists(RedisKey.DEPLOYMENT):
            self._redis.set(RedisKey.DEPLOYMENT, self._made(), nx=True)
        self.check()

    def complete(self) -> None:
        """Make the parts of the folder that are missing."""
        for part in _PARTS:
            make_folder(self._data_dir / part)

    def restore(self) -> None:
        """Have an empty Redis know this folder, whatever a rebuild that was killed has told it."""
        self._redis.set(RedisKey.DEPLOYMENT, self._made())

    def _made(self) -> str:
        here = self._here()
        return here or write_once(self._path, secrets.token_hex(16), into_new_folder=False).strip()

    def _here(self) -> str | None:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace").strip()  # damaged, it is another
        except FileNotFoundError:
            return None
