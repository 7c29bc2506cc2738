"""The processes of a run: the first talks to the service and decides, all of them do the same.

What the first one has, adapters included, travels pickled: one way for gloo and NCCL alike, once a jump.
"""

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from nextrapolate_trainer.errors import RankError

T = TypeVar("T")


def tell(failure: Exception | None) -> list[str]:
    """Tell the other processes how it went in this one; returns which of all of them failed, and why.

    All have to call it: one that failed comes to no other collective, and there the others would wait for it.
    """
    reasons: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, None if failure is None else f"{type(failure).__name__}: {failure}")
    return [f"process {rank}: {reason}" for rank, reason in enumerate(reasons) if reason is not None]


class Ranks:
    """All processes of a run; each of its methods has to be called by all of them."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._alone = accelerator.num_processes == 1
        self.leads: bool = accelerator.is_main_process

    def share(self, make: Callable[[], T]) -> T:
        """Have the first process make something, and return it in all of them.

        Raises:
            RankError: the first process failed; there, its own error is raised.
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
        made, reason = broadcast_object_list(sent)
        if failure is not None:
            raise failure
        if reason is not None:
            raise RankError(f"the first process failed: {reason}", reported=True)
        return made

    def together(self, act: Callable[[], T]) -> T:
        """Do something in all processes; where it fails in one, it fails in all.

        Raises:
            RankError: another process failed; there, its own error is raised.
        """
        if self._alone:
            return act()
        failure: Exception | None = None
        done: list[T] = []
        try:
            done.append(act())
        except Exception as error:  # noqa: BLE001 - whatever it is, the others have to hear of it
            failure = error
        failed = tell(failure)
        if failure is not None:
            raise failure
        if failed:
            raise RankError("; ".join(failed), reported=True)
        return done[0]
