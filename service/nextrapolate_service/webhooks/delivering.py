"""Telling webhooks, in every API process: the store hands each attempt to one of them."""

import asyncio
import logging
import random
from datetime import UTC, datetime

from fastapi.concurrency import run_in_threadpool

from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.webhooks.message import message
from nextrapolate_service.webhooks.sending import Outcome, Sender
from nextrapolate_store.errors import StoreUnavailable
from nextrapolate_store.records import DueDelivery
from nextrapolate_store.store import Store

_log = logging.getLogger(__name__)

_AT_ONCE = 16


async def deliver_for_ever(store: Store, settings: ServiceSettings) -> None:
    """Tell what is due, pause, and again; whatever goes wrong in one pass, the next one is made."""
    async with Sender.open(settings.webhook_networks) as sender:
        while True:
            try:
                due = await run_in_threadpool(store.deliveries.claim, _AT_ONCE)
                await asyncio.gather(*(_deliver(store, sender, settings.webhook_pauses, one) for one in due))
            except StoreUnavailable as error:
                _log.warning("no webhooks now: %s", error)
            except Exception:  # noqa: BLE001 - logged, and the next pass may do better
                _log.exception("a pass over the webhooks failed; the next one follows")
            await asyncio.sleep(settings.reconcile_seconds)


async def _deliver(store: Store, sender: Sender, pauses: tuple[float, ...], due: DueDelivery) -> None:
    job, webhook = due.job, due.job.request.webhook
    if webhook is None:
        return
    secret = await run_in_threadpool(store.credentials.get, job.id, "webhook-secret")
    try:
        outcome = await sender.send(webhook.url, message(job, secret, datetime.now(UTC)))
    except Exception:  # noqa: BLE001 - logged, and noted: it must hold up neither this webhook nor others
        _log.exception("a webhook cannot be told", extra={"job_id": job.id, "attempt": due.attempt})
        outcome = Outcome(None, "the server made a mistake; its log has more")
    wait = None
    if outcome.error is not None and not outcome.is_final and due.attempt <= len(pauses):
        wait = pauses[due.attempt - 1] * random.uniform(1.0, 1.2)  # noqa: S311 - jitter is no secret
    await run_in_threadpool(
        store.deliveries.settle, due, status=outcome.status, error=outcome.error, wait_seconds=wait
    )
    what = "told" if outcome.error is None else f"not told: {outcome.error}"
    _log.info("webhook %s", what, extra={"job_id": job.id, "attempt": due.attempt})
