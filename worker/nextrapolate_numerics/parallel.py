"""Work on many modules, on the threads of this process."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

MAX_MODULES = 4
"""Modules at a time. More would wait for one another, since between their products only one of them runs; and
each has memory of its own."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(
    work: Callable[[_Item], _Result], items: Sequence[_Item], most: int = MAX_MODULES
) -> Iterator[_Result]:
    """What becomes of each item, in their order: a few at a time, among which torch's threads are shared out.

    A module's matrices are small, and gain little from a second thread; there are many modules.

    Args:
        work: on one item; called on threads of its own where there are several.
        items: of them.
        most: at a time; memory may allow fewer than threads do.
    """
    with _shared_out(max(1, min(most, len(items)))) as at_once:
        if at_once == 1:
            yield from map(work, items)
        else:
            with ThreadPoolExecutor(at_once, thread_name_prefix="modules") as pool:
                yield from pool.map(work, items)


class _Sharing:
    """Who shares torch's threads out at present: their number is the process's."""

    lock = threading.Lock()
    callers = 0
    threads = 1


@contextmanager
def _shared_out(most: int) -> Iterator[int]:
    """Leave torch as many threads as each of `most` may have, or of fewer; gives how many there are.

    The first caller finds out how many threads there are, the last one gives them back.
    """
    with _Sharing.lock:
        if not _Sharing.callers:
            _Sharing.threads = torch.get_num_threads()
        _Sharing.callers += 1
        at_once = min(most, _Sharing.threads)
        torch.set_num_threads(_Sharing.threads // at_once)
    try:
        yield at_once
    finally:
        with _Sharing.lock:
            _Sharing.callers -= 1
            if not _Sharing.callers:
                torch.set_num_threads(_Sharing.threads)
