"""The folder that holds everything the embedded server keeps: private, and one server's at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nextrapolate_service.server.errors import DataFolderError, DataFolderInUseError
from nextrapolate_store.files import write_over
from nextrapolate_store.keys import new_key

DEFAULT_DATA_DIR = Path("nextrapolate-data")


@dataclass(frozen=True)
class DataFolder:
    """Paths under the data folder that are the embedded server's own.

    {path}/api_key        the key callers send, mode 600
    {path}/logs/          what the parts print
    {path}/redis/         the append-only file, the socket and the password
    {path}/server.lock    held by the server that runs here

    Beside them lies what every deployment keeps: the store's folders, by which Redis they go (both are in
    `nextrapolate_store.deployment`), and the audit log.
    """

    path: Path

    @property
    def api_key(self) -> Path:
        """The file with the key."""
        return self.path / "api_key"

    @property
    def logs(self) -> Path:
        """The folder with the logs."""
        return self.path / "logs"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder where it is missing, and hold it; however the process ends, its lock ends with it.

        Raises:
            DataFolderError: it cannot be made.
            DataFolderInUseError: another server holds it.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as error:
            raise DataFolderError(
                f"{self.path} cannot be the data folder ({error.strerror}): choose another --data-dir"
            ) from error
        with (self.path / "server.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise DataFolderInUseError(
                    f"another nextrapolate-server (process {lock.read().strip()}) runs on {self.path}: "
                    "stop it, or choose another --data-dir"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def make_key(self) -> str | None:
        """Generate the key, the first time, and give it; None where it is there already."""
        if self.api_key.exists():
            return None
        key = new_key("local")
        write_over(self.api_key, f"{key}\n", mode=0o600)
        return key
