"""Work on many modules, on the threads of this process."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_AT_ONCE = 4  # more would wait for one another: between their products only one of them runs

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """What becomes of each item, in their order: a few at a time, among which torch's threads are shared out.

    A module's matrices are small, and gain little from a second thread; there are many modules.
    """
    threads = torch.get_num_threads()
    at_once = min(threads, _AT_ONCE)
    torch.set_num_threads(threads // at_once)
    try:
        if at_once == 1:
            yield from map(work, items)
        else:
            with ThreadPoolExecutor(at_once, thread_name_prefix="modules") as pool:
                yield from pool.map(work, items)
    finally:
        torch.set_num_threads(threads)
