"""What all processes of a verl run do together: where it fails in one, it fails in all, and none hangs.

Before they wait for anything else, all of them tell each other how it went.
"""

from collections.abc import Callable
from typing import TypeVar

from nextrapolate_trainer.errors import GroupLostError, RankError
from nextrapolate_trainer.ranks import tell_all, telling

T = TypeVar("T")


def together(act: Callable[[], T]) -> T:
    """Do something in all processes, each its own part; where it fails in one, it fails in all.

    Barriers may be in it, and other collectives where nothing has happened since the last barrier that can
    fail in one process alone.

    Raises:
        RankError: it failed somewhere; says in which processes, and why.
        GroupLostError: the processes cannot reach each other.
    """
    try:
        # A trainer's own functions, such as verl's save of a checkpoint, have barriers between what can fail.
        # No process reports: Ray hands the driver the error of any one of them, and the driver logs it.
        with telling("barrier", reported=False):
            done = act()
    except (RankError, GroupLostError):  # told at a barrier: everybody knows, or nobody can be told
        raise
    except Exception as error:  # whatever it is, the others wait for word of it
        tell_all(error, reported=False)
        raise
    tell_all(None, reported=False)
    return done
