"""Wake-ups: the Celery message that says "look at this job". Losing one costs time, never the job."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from queue import SimpleQueue

from celery import Celery

from nextrapolate_store.queue import TASK_NAME, celery_settings

_log = logging.getLogger(__name__)

# kombu would look for its broker for ever; the reconciler is the one that tries again.
_GIVE_UP_AT_ONCE = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}


_NOT_SENT = "the wake-up of job %s did not go out (%s); it will be sent again"
_GATHER_SECONDS = 0.02
"""How much later a worker hears of a job, so that those which come within it go out together."""


class WakeUps:
    """Sends by task name: the worker's code is not known here. Safe to share between threads.

    A thread of its own sends them, what has gathered in one go: the broker flushes each go to disk, and
    whoever submits a job need not wait for that.
    """

    def __init__(self, redis_url: str) -> None:
        settings = celery_settings(redis_url)
        settings["broker_transport_options"] |= _GIVE_UP_AT_ONCE
        self._celery = Celery("nextrapolate", set_as_current=False)
        self._celery.conf.update(settings)
        self._gathered: SimpleQueue[tuple[str, Context]] = SimpleQueue()
        self._sender = ThreadPoolExecutor(1, "wake-ups")

    def send(self, job_id: str) -> None:
        """Have one sent; where it cannot be, the log says so, and the reconciler has it sent again."""
        self._gathered.put((job_id, copy_context()))  # logs and traces tell whose it is
        try:
            self._sender.submit(self._send_gathered)
        except RuntimeError:  # `close` was called: a thread has outlived the server that it answered for
            _log.warning(_NOT_SENT, job_id, "the server is stopping")

    def _send_gathered(self) -> None:
        if self._gathered.empty():  # they went with those before
            return
        time.sleep(_GATHER_SECONDS)
        wake_ups = [self._gathered.get() for _ in range(self._gathered.qsize())]
        try:
            with self._celery.producer_or_acquire() as producer, producer.batch():
                options = {"producer": producer, "retry": False}
                for job_id, context in wake_ups:
                    context.run(self._celery.send_task, TASK_NAME, args=[job_id], **options)
        except Exception as error:  # noqa: BLE001 - kombu raises what the transport raises, and none of it matters
            for job_id, context in wake_ups:
                context.run(_log.warning, _NOT_SENT, job_id, error)

    def close(self) -> None:
        """Send what is still to be sent, and give the connections back."""
        self._sender.shutdown()
        self._celery.close()
