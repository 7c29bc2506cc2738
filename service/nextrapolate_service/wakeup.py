"""Wake-ups: the Celery message that says "look at this job". Losing one costs time, never the job."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from celery import Celery

from nextrapolate_store.queue import TASK_NAME, celery_settings

_log = logging.getLogger(__name__)

# kombu would look for its broker for ever; the reconciler is the one that tries again.
_GIVE_UP_AT_ONCE = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}


class WakeUps:
    """Sends by task name: the worker's code is not known here. Safe to share between threads.

    A thread of its own sends them: the broker flushes each to disk, and whoever submits a job need not wait
    for that.
    """

    def __init__(self, redis_url: str) -> None:
        settings = celery_settings(redis_url)
        settings["broker_transport_options"] |= _GIVE_UP_AT_ONCE
        self._celery = Celery("nextrapolate", set_as_current=False)
        self._celery.conf.update(settings)
        self._sender = ThreadPoolExecutor(1, "wake-ups")

    def send(self, job_id: str) -> None:
        """Have one sent; where it cannot be, the log says so, and the reconciler has it sent again."""
        self._sender.submit(copy_context().run, self._send, job_id)  # logs and traces tell whose it is

    def _send(self, job_id: str) -> None:
        try:
            self._celery.send_task(TASK_NAME, args=[job_id], retry=False)
        except Exception as error:  # noqa: BLE001 - kombu raises what the transport raises, and none of it matters
            _log.warning("the wake-up of job %s did not go out (%s); it will be sent again", job_id, error)

    def close(self) -> None:
        """Send what is still to be sent, and give the connections back."""
        self._sender.shutdown()
        self._celery.close()
