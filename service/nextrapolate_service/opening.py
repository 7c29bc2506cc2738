"""The store, opened when Redis is there: the API starts without it, and says that it is not ready."""

import asyncio
import logging
from contextlib import suppress

from fastapi.concurrency import run_in_threadpool

from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.errors import StoreError, StoreUnavailable
from nextrapolate_store.keys import KeyText, Scope
from nextrapolate_store.store import Store

_log = logging.getLogger(__name__)

_TRY_AGAIN_SECONDS = 1.0


class Opening:
    """Opens the store, however long that takes."""

    def __init__(self, settings: ServiceSettings, own_key: KeyText | None) -> None:
        self._settings = settings
        self._own_key = own_key
        self._store: Store | None = None
        self._problem: StoreError = StoreUnavailable(
            "the server has only just started; try again in a moment"
        )
        self._opened = asyncio.Event()

    @property
    def store(self) -> Store:
        """The open store.

        Raises:
            StoreError: why it could not be opened so far.
        """
        if self._store is None:
            raise type(self._problem)(str(self._problem))
        return self._store

    async def until_open(self) -> Store:
        """Try until it is open; what stands in the way is logged once."""
        while self._store is None:
            try:
                self._store = await run_in_threadpool(self._open)
            except Exception as error:  # noqa: BLE001 - said and logged; what stands in the way may go away
                self._note(error)
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
        self._opened.set()
        return self._store

    async def wait(self, seconds: float) -> None:
        """Wait until it is open, but no longer than this."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._opened.wait(), seconds)

    def close(self) -> None:
        """Close the store, if it was opened."""
        if self._store is not None:
            self._store.close()

    def _note(self, error: Exception) -> None:
        foreseen = isinstance(error, StoreError | OSError)
        text = _said(error)
        if text != str(self._problem):
            _log.error("not ready: %s", text, exc_info=None if foreseen else error)
        self._problem = error if isinstance(error, StoreError) else StoreUnavailable(text)

    def _open(self) -> Store:
        store = Store.open(self._settings.store)
        store.quotas.set_defaults(self._settings.quotas)
        if self._own_key is not None:
            _let_in(self._own_key, store)
        return store


def _said(error: Exception) -> str:
    match error:
        case StoreError():
            return str(error)
        case OSError():
            return f"the server cannot use its data folder ({error}): the operator has to look at it"
    return f"the store cannot be opened ({error!r}); the server's log has more"


def _let_in(key: KeyText, store: Store) -> None:
    """Adopt the key of the file, whose id is its tenant's, and say what whoever changed it may not expect."""
    adopted = store.keys.adopt(key, key.id, list(Scope))
    if adopted.revoked_at is not None:
        _log.warning("the key %s in the API key file was revoked and allows nothing: create another", key.id)
    before = [each for each in store.keys.list() if each.id == each.tenant != key.id]
    if still_open := [each.id for each in before if each.revoked_at is None]:
        _log.warning(
            "keys that were in the API key file before are still valid: %s. The one there now, %s, "
            "belongs to another tenant; `nextrapolate-server keys revoke` revokes a key",
            ", ".join(still_open),
            key.id,
        )
