"""The Celery app. Its one task takes a job id; the job itself is in the store."""

import logging
import subprocess
import sys
import threading
from functools import cache
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown, worker_shutting_down

from nextrapolate_store.environment import warnings_of_unknown_settings
from nextrapolate_store.errors import StoreError, StoreUnavailable
from nextrapolate_store.logs import configure_logging
from nextrapolate_store.queue import TASK_NAME, celery_settings
from nextrapolate_store.store import Store
from nextrapolate_worker.attempt import run_job
from nextrapolate_worker.nursery import Nursery
from nextrapolate_worker.settings import WorkerSettings
from nextrapolate_worker.wakeups import WakeUp

_log = logging.getLogger(__name__)

try:
    configure_logging()
    settings = WorkerSettings.from_environment()
except ValueError as error:
    raise SystemExit(f"nextrapolate-server: {error}") from None
for warning in warnings_of_unknown_settings():
    _log.warning("%s", warning)
app = Celery("nextrapolate", set_as_current=False)
app.conf.update(celery_settings(settings.store.redis_url))

nursery = Nursery()
stopping = threading.Event()


@cache
def store() -> Store:
    """Open the store once; where Redis is not there yet, when the first job comes."""
    return Store.open(settings.store)


@app.task(name=TASK_NAME, Request=WakeUp)
def run(job_id: str) -> None:
    """Make one attempt at the job, then warm a child for the next."""
    try:
        run_job(store(), settings, nursery, job_id, stopping)
    finally:
        if not stopping.is_set():
            nursery.prepare()


@setup_logging.connect
def _leave_logging_alone(**_: Any) -> None:
    """That somebody listens keeps Celery from setting up logs of its own."""
    for name in ("celery.worker.strategy", "celery.app.trace"):  # two lines a wake-up, whatever comes of it
        logging.getLogger(name).setLevel(logging.WARNING)


@worker_init.connect
def _check_store(**_: Any) -> None:
    """Do not start on data that this version cannot use."""
    try:
        store()
    except StoreUnavailable as error:
        _log.warning("not checked: %s", error)
    except StoreError as error:
        _log.critical("not started: %s", error)
        raise SystemExit(1) from None


@worker_init.connect
def _check_device(**_: Any) -> None:
    """Do not start where every job would be given back; a process of its own, as torch takes much memory."""
    device = settings.computing.device
    if device in ("auto", "cpu"):
        return
    command = (sys.executable, "-m", "nextrapolate_worker.devices", device)
    checked = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own
    if checked.returncode:
        _log.critical("not started: %s", checked.stderr.strip())
        raise SystemExit(1)


@worker_ready.connect
def _warm_up(**_: Any) -> None:
    nursery.prepare()


@worker_shutting_down.connect
def _stop(**_: Any) -> None:
    stopping.set()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    nursery.close()
