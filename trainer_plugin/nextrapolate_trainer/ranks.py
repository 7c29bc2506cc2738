"""The processes of a run: the first talks to the service and decides, all of them do the same.

What the first one has, adapters included, travels pickled: one way for gloo and NCCL alike, once a jump.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.distributed import all_gather_object
from torch.distributed.distributed_c10d import _get_default_group

from nextrapolate_trainer.errors import GroupLostError, RankError

T = TypeVar("T")

COLLECTIVES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "barrier",
    "broadcast",
    "broadcast_object_list",
)
"""What Accelerate, and with it a trainer's evaluation, calls of `torch.distributed`."""


def tell(failure: Exception | None) -> list[str]:
    """Tell the other processes how it went in this one; returns which of all of them failed, and why.

    All have to call it: one that failed comes to no other collective, and there the others would wait for it.

    Raises:
        GroupLostError: they cannot be told.
    """
    reasons: list[str | None] = [None] * dist.get_world_size()
    with _speaking():
        all_gather_object(reasons, None if failure is None else f"{type(failure).__name__}: {failure}")
    return [f"process {rank}: {reason}" for rank, reason in enumerate(reasons) if reason is not None]


def tell_all(failure: Exception | None, *, reported: bool) -> None:
    """Tell the other processes how it went in this one.

    Args:
        failure: why it failed, if it did.
        reported: whether a process that fails says so itself.

    Raises:
        RankError: it failed in any of them; says in which, and why.
    """
    if failed := tell(failure):
        raise RankError("; ".join(failed), reported=reported) from failure


@contextmanager
def _speaking() -> Iterator[None]:
    """Tell what a collective itself raises, whatever its backend, from what a process has failed at."""
    try:
        yield
    except torch.OutOfMemoryError:  # the group is well, and this process knows what it lacks
        raise
    except RuntimeError as error:
        raise GroupLostError(
            f"this run's processes cannot reach each other any more, maybe since one has died: {error}"
        ) from error


@contextmanager
def telling(*collectives: str, reported: bool) -> Iterator[None]:
    """Have these collectives raise where another process failed on its way there, for as long as this lasts.

    Those of a group of processes are left alone: the others would not come to hear of it. So are those that
    shards are gathered by, though all processes are in their group: there is one in every layer of a forward
    pass, and telling at each took half as long again as an evaluation does.
    """
    own = {name: getattr(dist, name) for name in collectives}

    def told(collective: Callable[..., Any]) -> Callable[..., Any]:
        def tell_and_join(*args: Any, **options: Any) -> Any:
            if not any(isinstance(given, dist.ProcessGroup) for given in (*args, *options.values())):
                tell_all(None, reported=reported)
            return collective(*args, **options)

        return tell_and_join

    for name, collective in own.items():
        setattr(dist, name, told(collective))
    try:
        yield
    finally:
        for name, collective in own.items():
            setattr(dist, name, collective)


def group_timeout(configured: float) -> float:
    """Return the seconds that the processes' group waits in a collective, which then ends the run.

    A script that has made the group before the trainer's arguments has given it a timeout of its own.

    Args:
        configured: what the arguments say, for a backend that does not tell.
    """
    group = _get_default_group()
    try:
        backends = [group._get_backend(device) for device in group._device_types]
        return min(backend.options._timeout for backend in backends).total_seconds()
    except (AttributeError, RuntimeError):  # MPI's and UCC's
        return configured


class Ranks:
    """All processes of a run; each of its methods has to be called by all of them."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._alone = accelerator.num_processes == 1
        self.leads: bool = accelerator.is_main_process

    def share(self, make: Callable[[], T]) -> T:
        """Have the first process make something, and return it in all of them.

        Raises:
            RankError: the first process failed; there, its own error is raised.
            GroupLostError: the processes cannot reach each other.
        """
        if self._alone:
            return make()
        sent: list[T | str | None] = [None, None]
        failure: Exception | None = None
        if self.leads:
            try:
                sent = [make(), None]
            except Exception as error:  # noqa: BLE001 - whatever it is, the others wait for word of it
                failure, sent = error, [None, str(error)]
        made: T
        with _speaking():
            made, reason = broadcast_object_list(sent)
        if failure is not None:
            raise failure
        if reason is not None:
            raise RankError(f"the first process failed: {reason}", reported=True)
        return made

    def together(self, act: Callable[[], T]) -> T:
        """Do something in all processes; where it fails in one, it fails in all.

        Collectives may be in it: the others do not wait there for one that has failed.

        Raises:
            RankError: another process failed; there, its own error is raised.
            GroupLostError: the processes cannot reach each other.
        """
        if self._alone:
            return act()
        try:
            with telling(*COLLECTIVES, reported=True):
                done = act()
        except (RankError, GroupLostError):  # told at a collective: everybody knows, or nobody can be told
            raise
        except Exception as error:  # whatever it is, the others have to hear of it
            tell(error)
            raise
        tell_all(None, reported=True)
        return done
