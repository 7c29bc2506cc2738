"""Quotas: how much tenants may use, what they use, and what is held for what is on its way."""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from nextrapolate.schemas import FileInfo
from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.documents import QuotasDocument
from nextrapolate_store.errors import QuotaExceeded
from nextrapolate_store.journal import Journal
from nextrapolate_store.tenants import Quota, Quotas, Usage, checked_quota, checked_tenant

_LEASE_SECONDS = 60.0
"""How long a hold outlives its process."""
_RENEW_SECONDS = 10.0
_LIMITS = {
    Quota.BYTES: "{used} of the {limit} bytes it may store are in use, and this does not fit: delete "
    "series that are no longer needed; their files are deleted when no job that read them is kept, "
    "and a day after their upload at the earliest",
    Quota.SERIES: "it has {used} series, and the limit is {limit}: delete some that are no longer needed",
    Quota.QUEUED_JOBS: "{used} of its jobs are queued, and the limit is {limit}: submit more as they run",
    Quota.RUNNING_JOBS: "{used} of its jobs are running, and the limit is {limit}",
    Quota.KEPT_JOBS: "{used} of its jobs are kept, ended or not, and the limit is {limit}: wait "
    "until the oldest are swept",
    Quota.UPLOADS: "{used} of its uploads are in progress, and the limit is {limit}: send fewer at once",
}


class Room:
    """Room for one upload, from before its first byte until it counts as stored or is given up."""

    def __init__(self, quotas: "QuotaStore", tenant: str, expected_bytes: int, sha256: str | None) -> None:
        self._quotas = quotas
        self._tenant = tenant
        self._sha256 = sha256
        self._id = f"upload-{secrets.token_hex(8)}"
        self._bytes = expected_bytes
        self._hold()

    def _hold(self) -> None:
        amounts = {Quota.UPLOADS: 1, Quota.BYTES: self._bytes}
        self._quotas.hold(self._tenant, self._id, amounts, self._sha256)
        self._renew_at = time.monotonic() + _RENEW_SECONDS

    def cover(self, total_bytes: int) -> None:
        """Go on holding it, and more where more is coming than was expected.

        Raises:
            QuotaExceeded: there is not so much.
        """
        if total_bytes > self._bytes or time.monotonic() > self._renew_at:
            self._bytes = max(self._bytes, total_bytes)
            self._hold()

    def keep(self, info: FileInfo) -> None:
        """Count the file as stored."""
        self._quotas.charge(self._tenant, info, self._id)

    def leave(self) -> None:
        """Give back what was not kept."""
        self._quotas.end_hold(self._tenant, self._id)


class QuotaStore:
    """The quotas of all tenants. All methods raise `StoreUnavailable` where Redis does not answer.

    What is counted is right after any kill: it changes in the same script as what is counted. Files are the
    exception, as a script cannot write them: one that was stored and not yet counted when its process died is
    counted by the next sweep.
    """

    def __init__(self, redis: Connection, journal: Journal) -> None:
        self._redis = redis
        self._journal = journal
        self._hold, self._end_hold = redis.load("hold"), redis.load("end_hold")
        self._charge, self._discharge = redis.load("charge_blob"), redis.load("discharge_blob")
        self._expect_nothing, self._usage = redis.load("expect_nothing"), redis.load("usage")

    @contextmanager
    def room(self, tenant: str, expected_bytes: int = 0, sha256: str | None = None) -> Iterator[Room]:
        """Hold room for an upload while the context lasts.

        Args:
            tenant: whose it is.
            expected_bytes: how much is announced; more may come.
            sha256: its digest (hex) where that is announced; what is stored already takes no more room.

        Raises:
            QuotaExceeded: there is no room.
        """
        room = Room(self, tenant, expected_bytes, sha256)
        try:
            yield room
        finally:
            room.leave()

    def hold(
        self, tenant: str, hold_id: str, amounts: Mapping[Quota, int], sha256: str | None = None
    ) -> None:
        """Hold amounts for a minute, or go on holding them; what is made under this id ends the hold.

        Raises:
            QuotaExceeded: there is not so much left.
        """
        refusal = self._hold(
            args=[tenant, hold_id, json.dumps(amounts), round(_LEASE_SECONDS * 1000), sha256 or ""]
        )
        if refusal:
            raise exceeded(tenant, *refusal[1:])

    def end_hold(self, tenant: str, hold_id: str) -> None:
        """Give back what is held."""
        self._end_hold(args=[tenant, hold_id])

    def charge(self, tenant: str, info: FileInfo, hold_id: str = "") -> None:
        """Count a blob as stored, once, in place of what was held for it."""
        self._charge(args=[tenant, info.sha256, info.bytes, hold_id])

    def recount(self, tenant: str, look: Callable[[], Mapping[str, int]]) -> None:
        """Count the blobs that a look at the disk finds (bytes by sha256), and no others."""
        counted = self._redis.fields(RedisKey.TENANT_BLOBS + tenant)  # first, or what comes now would go
        stored = look()
        for sha256 in stored.keys() - counted.keys():
            self.charge(tenant, FileInfo(bytes=stored[sha256], sha256=sha256))
        for sha256 in counted.keys() - stored.keys():
            self._discharge(args=[tenant, sha256])

    def count_fetched(self, tenant: str, job_id: str, look: Callable[[], Mapping[str, int]]) -> None:
        """Count what was fetched for a job that is over, in place of what was expected at submit."""
        self.recount(tenant, look)
        self._expect_nothing(args=[job_id])

    def usage(self, tenant: str) -> dict[Quota, Usage]:
        """Tell how much of each quota the tenant uses, what is on its way among it, and how much it may."""
        pairs = cast(list[tuple[int, int]], self._usage(args=[tenant, *Quota]))
        return {quota: Usage(*pair) for quota, pair in zip(Quota, pairs, strict=True)}

    def set(self, tenant: str, quotas: Mapping[Quota, int]) -> None:
        """Give a tenant quotas of its own; those that are not named stay as they are.

        Raises:
            ValueError: no tenant can have this name, or no quota this size.
        """
        name = RedisKey.TENANT_QUOTAS + checked_tenant(tenant)
        for quota, most in quotas.items():
            self._redis.hset(name, quota, checked_quota(quota, most))
        self._write_down(tenant)

    def set_defaults(self, quotas: Quotas) -> None:
        """Set the quotas of all tenants that have none of their own; of several processes the last wins."""
        self._redis.hset(RedisKey.QUOTAS, mapping={quota: getattr(quotas, quota) for quota in Quota})

    def keep_defaults(self, quotas: Quotas) -> None:
        """Set them again where Redis has lost them: they are on no disk, so a rebuild does not bring them."""
        if not self._redis.exists(RedisKey.QUOTAS):
            self.set_defaults(quotas)

    def reset(self, tenant: str) -> None:
        """Give a tenant the quotas that all tenants have."""
        self._redis.delete(RedisKey.TENANT_QUOTAS + tenant)
        self._write_down(tenant)

    def restore(self, document: QuotasDocument) -> None:
        """Bring a tenant's own quotas back from their record; those that are set stay as they are."""
        for quota, most in document.quotas.items():
            self._redis.hsetnx(RedisKey.TENANT_QUOTAS + document.tenant, quota, most)

    def _write_down(self, tenant: str) -> None:
        own = self._redis.fields(RedisKey.TENANT_QUOTAS + tenant)
        quotas = {name: int(most) for name, most in own.items()}
        self._journal.write_quotas(QuotasDocument(tenant=tenant, quotas=quotas))


def exceeded(tenant: str, name: str, used: int, limit: int) -> QuotaExceeded:
    """Make the error that says which quota of the tenant is used up, and what to do."""
    quota = Quota(name)
    option = f"--{quota.replace('_', '-')}"
    return QuotaExceeded(
        f"the quota of the tenant {tenant} is used up: {_LIMITS[quota].format(used=used, limit=limit)}; or "
        f"have the operator raise it, with `nextrapolate-server tenants set {tenant} {option} N`",
        quota=quota,
        usage=Usage(used, limit),
    )
