"""Telling webhooks, in every API process: the store hands each attempt to one of them."""

import asyncio
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from fastapi.concurrency import run_in_threadpool

from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.webhooks.message import message
from nextrapolate_service.webhooks.sending import Outcome, Sender
from nextrapolate_store.errors import StoreError
from nextrapolate_store.records import DueDelivery
from nextrapolate_store.store import Store

_log = logging.getLogger(__name__)

_AT_ONCE = 64
_JITTER = random.Random()  # noqa: S311 - no secret, and nobody else's numbers, which a seed may have fixed
_SECRET_LOST = Outcome(
    None,
    "its secret is lost, for example because a backup without it was restored, and nothing is sent "
    "unsigned in its place",
)


async def deliver_for_ever(store: Store, settings: ServiceSettings) -> None:
    """Tell what is due, each for itself; whatever goes wrong with one, the others are told."""
    telling: set[asyncio.Task[None]] = set()
    async with Sender.open(settings.webhook_networks) as sender, asyncio.TaskGroup() as tasks:
        while True:
            for due in await _claim(store, _AT_ONCE - len(telling)):
                telling.add(tasks.create_task(_tell(store, sender, settings.webhook_pauses, due)))
            telling = await _first_through(telling, settings.reconcile_seconds)


async def _claim(store: Store, limit: int) -> list[DueDelivery]:
    with _logged("no webhooks now"):
        return await run_in_threadpool(store.deliveries.claim, limit)
    return []


async def _first_through(telling: set[asyncio.Task[None]], seconds: float) -> set[asyncio.Task[None]]:
    """Wait until one of them is through, but not for long: others may be due by then. Gives the rest."""
    if not telling:
        await asyncio.sleep(seconds)
        return telling
    through, rest = await asyncio.wait(telling, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if any(task.cancelled() for task in through):  # by nobody here, and a group of tasks says nothing of it
        _log.error("a webhook was interrupted while it was sent; it is sent again when its hold is over")
    return rest


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Log what goes wrong; what was claimed and not settled is due again when its hold is over."""
    try:
        yield
    except StoreError as error:
        _log.warning("%s: %s", what, error)
    except Exception:  # noqa: BLE001 - logged, and the next one may do better
        _log.exception(what)


async def _tell(store: Store, sender: Sender, pauses: tuple[float, ...], due: DueDelivery) -> None:
    with _logged("the outcome of a webhook was not recorded"):
        await _deliver(store, sender, pauses, due)


async def _deliver(store: Store, sender: Sender, pauses: tuple[float, ...], due: DueDelivery) -> None:
    job, webhook = due.job, due.job.request.webhook
    if webhook is None:
        return
    secret = await run_in_threadpool(store.credentials.get, job.id, "webhook-secret")
    if secret is None and job.webhook_is_signed:
        await run_in_threadpool(store.check_folder)  # where it is away, the secret lies in it
        await _settle(store, due, _SECRET_LOST)
        return
    try:
        outcome = await sender.send(job.tenant, webhook.url, message(job, secret, datetime.now(UTC)))
    except Exception:  # noqa: BLE001 - logged, and noted: it must hold up neither this webhook nor others
        _log.exception("a webhook cannot be sent", extra={"job_id": job.id, "attempt": due.attempt})
        outcome = Outcome(None, "the server made a mistake; its log has more")
    wait = None
    if outcome.error is not None and not outcome.is_final and due.attempt <= len(pauses):
        wait = pauses[due.attempt - 1] * _JITTER.uniform(1.0, 1.2)
    await _settle(store, due, outcome, wait)


async def _settle(store: Store, due: DueDelivery, outcome: Outcome, wait: float | None = None) -> None:
    settled = await run_in_threadpool(
        store.deliveries.settle, due, status=outcome.status, error=outcome.error, wait_seconds=wait
    )
    what, which = outcome.error or "told", {"job_id": due.job.id, "attempt": due.attempt}
    if settled:
        _log.info("webhook: %s", what, extra=which)
    else:
        _log.warning(
            "webhook: %s, after another attempt was started: this one is not recorded", what, extra=which
        )
