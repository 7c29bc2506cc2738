"""The upkeep that every API process does: reconciling, writing down how jobs ended, and sweeping."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import astuple

from fastapi.concurrency import run_in_threadpool

from nextrapolate_service.wakeup import WakeUps
from nextrapolate_store.errors import StoreError
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quotas

_log = logging.getLogger(__name__)

_SELDOM = 10
"""How many pauses lie between two looks for what was lent and is over: Redis is asked for each that waits."""


async def reconcile_for_ever(store: Store, wake_ups: WakeUps, quotas: Quotas, pause_seconds: float) -> None:
    """Do all of it, pause, and again; what takes long or goes wrong holds up nothing else."""
    await asyncio.gather(
        _for_ever(lambda: _reconcile(store, wake_ups, quotas), pause_seconds),
        _for_ever(store.recorder.record_ends, pause_seconds),
        _for_ever(store.credentials.forget_over, _SELDOM * pause_seconds),
        _for_ever(lambda: _sweep(store), pause_seconds),
    )


async def _for_ever(work: Callable[[], object], pause_seconds: float) -> None:
    """Whatever goes wrong in one pass, the next one is made."""
    while True:
        try:
            await run_in_threadpool(work)
        except (StoreError, OSError) as error:  # a disk that is full, among others
            _log.warning("no upkeep now: %s", error)
        except Exception:  # noqa: BLE001 - logged, and the next pass may do better
            _log.exception("a pass of the upkeep failed; the next one follows")
        await asyncio.sleep(pause_seconds)


def _reconcile(store: Store, wake_ups: WakeUps, quotas: Quotas) -> None:
    store.quotas.keep_defaults(quotas)
    done = store.jobs.reconcile()
    for what in ("requeued", "failed", "cancelled"):
        for job_id in getattr(done, what):
            _log.warning("%s: the heartbeat of its worker stopped", what, extra={"job_id": job_id})
    for job_id in done.gone:
        _log.error(
            "Redis has lost the record of this job: see that its maxmemory-policy is noeviction, and bring "
            "the job back with `nextrapolate-server rebuild --add-missing`",
            extra={"job_id": job_id},
        )
    for job_id in done.wake:
        wake_ups.send(job_id)


def _sweep(store: Store) -> None:
    swept = store.sweeper.sweep_if_due()
    if swept is not None and any(astuple(swept)):
        _log.info("swept: %s", swept)
