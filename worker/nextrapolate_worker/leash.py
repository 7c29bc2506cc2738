"""A process that does not outlive the one that started it.

The server's leash asks the kernel for the same in lines of its own. All that both may import is the store,
and that takes a second: each process would start so much later, and not see its parent die meanwhile.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies (Linux only): nobody could commit the result."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the worker died before its child was ready")
