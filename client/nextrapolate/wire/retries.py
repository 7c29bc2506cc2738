"""When a call is made again, and after which pause: one policy for both clients.

Every call may be repeated. GET and PUT are idempotent by nature, POST /jobs by its Idempotency-Key; a cancel
and a jump only say once more what is so; a series created twice leaves an empty one behind.
"""

import random

from nextrapolate.errors import APIError, ServiceUnreachable

FIRST_PAUSE = 0.5
MAX_PAUSE = 8.0
MAX_RETRY_AFTER = 30.0
ATTEMPTS = 6
PATIENCE = 600.0
ATTEMPTS_AT_A_STRANGER = 3  # a server that never answered is a wrong address rather than a restart

_JITTER = random.Random()  # noqa: S311 - no secret, and not the numbers of the training run that calls


def may_pass(error: BaseException) -> bool:
    """Tell whether the same call may go through a little later."""
    if isinstance(error, APIError):
        return error.problem.retryable and (error.retry_after or 0.0) <= MAX_RETRY_AFTER
    return isinstance(error, ServiceUnreachable)


def pause_after(attempt: int, error: BaseException | None) -> float:
    """Tell how long to wait after failed `attempt` 1, 2, ...: what the server asks, else doubling to a cap.

    The jitter keeps the clients of one server from coming back all at once when it returns; none comes sooner
    than it was asked to.
    """
    if isinstance(error, APIError) and error.retry_after is not None:
        return error.retry_after * _JITTER.uniform(1.0, 1.25)
    doublings = min(attempt - 1, 16)  # bounded, so that a day of attempts does not overflow
    doubled = FIRST_PAUSE * 2.0**doublings
    return min(MAX_PAUSE, doubled) * _JITTER.uniform(0.5, 1.0)
