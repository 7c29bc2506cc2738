"""Work on many modules, on the threads of this process."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """What becomes of each item, in their order: as many at a time as torch has threads, on one thread each.

    A module's matrices are too small to be shared out among threads, and there are many modules. What comes
    of them does not depend on the number of threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if threads == 1:
            yield from map(work, items)
        else:
            with ThreadPoolExecutor(threads, thread_name_prefix="modules") as pool:
                yield from pool.map(work, items)
    finally:
        torch.set_num_threads(threads)
