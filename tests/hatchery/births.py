"""Forks children of workers from a process that has imported torch, and so begins a job in no time.

    python births.py keep SOCKET     keeps forking them
    python births.py hatch SOCKET    stands for one child: what happens to it happens to the child

What a child does, who tells it to, and how it dies are the real child's: only its birth is not. Everything
but `keep` is standard library, since it runs once a job.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import NoReturn

_STANDARD_STREAMS = 3
_EXIT_CODE = struct.Struct("<i")
_PR_SET_PDEATHSIG = 1


def hatch_command(path: str) -> tuple[str, ...]:
    """What stands for the child, of the hatchery that listens at `path`."""
    return (sys.executable, "-S", __file__, "hatch", path)


def keep(path: str) -> NoReturn:
    """Fork a child for everybody who connects."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the nurses
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen(64)
        os.rename(f"{path}.new", path)  # noqa: PTH104 - whoever finds it can connect
        from nextrapolate_worker import child  # seconds; who connects meanwhile waits for them

        while True:
            caller, _ = listener.accept()
            if os.fork() == 0:
                _nurse(caller, child.main)
            caller.close()


def _nurse(caller: socket.socket, main: Callable[[], None]) -> NoReturn:
    """Fork one child, kill it where the caller hangs up, and say how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _die_with_parent()
    _, streams, _, _ = socket.recv_fds(caller, 1, _STANDARD_STREAMS)
    child = os.fork()
    if child == 0:
        _become(main, streams)
    for stream in streams:
        os.close(stream)
    select.select([caller.fileno(), os.pidfd_open(child)], [], [])
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        caller.sendall(_EXIT_CODE.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(main: Callable[[], None], streams: list[int]) -> NoReturn:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(_STANDARD_STREAMS, max(streams) + 1)
    code = 1
    try:
        main()
        code = 0
    except BaseException:  # noqa: BLE001 - nothing above it but the hatchery's own loop
        sys.excepthook(*sys.exc_info())
    sys.stderr.flush()
    os._exit(code)


def hatch(path: str) -> NoReturn:
    """Have a child forked that speaks through this process' standard streams, and end as it ends."""
    _die_with_parent()
    with socket.socket(socket.AF_UNIX) as hatchery:
        hatchery.connect(path)
        socket.send_fds(hatchery, [b"."], range(_STANDARD_STREAMS))
        answer = hatchery.recv(_EXIT_CODE.size)
    if not answer:
        sys.exit("the hatchery is gone")
    (code,) = _EXIT_CODE.unpack(answer)
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    {"keep": keep, "hatch": hatch}[sys.argv[1]](sys.argv[2])
