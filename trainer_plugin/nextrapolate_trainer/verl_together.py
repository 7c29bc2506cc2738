"""What all processes of a verl run do together: where it fails in one, it fails in all, and none hangs.

Before they wait for anything else, all of them tell each other how it went.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist

from nextrapolate_trainer.errors import RankError
from nextrapolate_trainer.ranks import tell

T = TypeVar("T")


def together(act: Callable[[], T]) -> T:
    """Do something in all processes, each its own part; where it fails in one, it fails in all.

    Barriers may be in it, and other collectives where nothing has happened since the last barrier that can
    fail in one process alone.

    Raises:
        RankError: it failed somewhere; says in which processes, and why.
    """
    try:
        with _telling_barriers():
            done = act()
    except RankError:  # told at a barrier: everybody knows
        raise
    except Exception as error:  # whatever it is, the others wait for word of it
        _tell_all(error)
        raise
    _tell_all(None)
    return done


def _tell_all(failure: Exception | None) -> None:
    """Tell the other processes how it went in this one, and raise where it failed in any of them."""
    if failed := tell(failure):
        # The same in all: Ray hands the driver the error of any one of them.
        raise RankError("; ".join(failed)) from failure


@contextmanager
def _telling_barriers() -> Iterator[None]:
    """Have a barrier raise where another process failed on its way there, for as long as this lasts.

    A trainer's own functions, such as verl's save of a checkpoint, have them between what can fail.
    """
    wait = dist.barrier

    def tell_and_wait(*args: Any, **options: Any) -> Any:
        _tell_all(None)
        return wait(*args, **options)

    dist.barrier = tell_and_wait
    try:
        yield
    finally:
        dist.barrier = wait
