"""The connection to Redis: its keys, its scripts, its timeouts and retries."""

import logging
import re
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, cast

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.commands.core import Script
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from nextrapolate_store.errors import StoreIncompatible, StoreLost, StoreUnavailable
from nextrapolate_store.ids import make_id

_log = logging.getLogger(__name__)

SCHEMA_VERSION = 2
_OLDEST_REDIS = (6, 2)  # ZRANGE ... BYLEX REV, and XRANGE from an exclusive id
_REFUSALS = {
    "OOM": "its memory is full: raise its maxmemory, delete series, or keep jobs for a shorter time",
    "MISCONF": "it could not write to its disk, as its log says: make room there, or fix it; next to an "
    'append-only file it needs no snapshots (CONFIG SET save "")',
    "NOREPLICAS": "too few of its replicas can be reached: bring them back, or lower min-replicas-to-write",
    "READONLY": "it is a replica: give the URL of its primary, or wait until it takes over",
    "MASTERDOWN": "it is a replica that has lost its primary: bring that back",
    "LOADING": "it is still loading its data from disk: wait until it has finished",
    "BUSY": "a script has been running in it for too long: wait, or end the script with SCRIPT KILL",
}
"""For what state of its own Redis refuses commands, and what to do, by the code of its error."""
_REFUSAL = re.compile(rf"(?:^|: -)({'|'.join(_REFUSALS)}) ")
"""Finds the code in an error's text: at its beginning or, where a script met it in Redis 6.2, after ": -"."""


class RedisKey(StrEnum):
    """Every key that the store uses in Redis. One that ends in a colon is followed by an id.

    The scripts get the same names as the table `key`, in lower case.
    """

    SCHEMA_VERSION = "next:schema_version"
    DEPLOYMENT = "next:deployment"
    """Id of the data folder that belongs to this Redis."""
    PING = "next:ping"
    JOB = "next:job:"
    """Hash: the job's record."""
    EVENTS = "next:events:"
    """Stream of the job's events."""
    TENANT_JOBS = "next:tenant-jobs:"
    """Sorted set of the tenant's job ids, all of score 0; with `:{state}` added, of those in that state."""
    QUEUED = "next:queued"
    """Sorted set of the ids of queued jobs; score: when the job was created (ms)."""
    LEASES = "next:leases"
    """Sorted set of the ids of claimed jobs; score: when the lease ends (ms)."""
    IDEMPOTENCY = "next:idempotency:"
    """Hash: digest of a request, and the job that it made. Followed by the tenant and the caller's key."""
    IDEMPOTENCY_ENDS = "next:idempotency-ends"
    """Sorted set of the IDEMPOTENCY keys; score: when the key is forgotten (ms)."""
    ENDED = "next:ended"
    """Sorted set of the ids of jobs that have ended; score: when (ms)."""
    EVENTS_KEPT = "next:told"
    """Sorted set of the ids of jobs that have ended and whose events are still kept; score as in ENDED."""
    DELIVERIES = "next:deliveries"
    """Sorted set of the ids of jobs whose webhook has to be delivered; score: when it is due (ms)."""
    TENANT_DELIVERING = "next:tenant-telling:"
    """Sorted set of the tenant's jobs whose webhook is being delivered; score: when the claim ends (ms)."""
    TENANT_WEBHOOKS_PARKED = "next:tenant-untold:"
    """Sorted set of the tenant's jobs whose webhook waits, outside of DELIVERIES, until fewer of the
    tenant's are being delivered; score: when it is due (ms)."""
    WEBHOOKS_PARKED = "next:untold"
    """Set of the tenants that have parked webhooks."""
    DELIVERY_CLAIM = "next:taken:"
    """The webhooks that one claim took (JSON), kept for a while in case its reply was lost. Followed by the
    claim's token."""
    UNRECORDED = "next:unrecorded"
    """Set of the ids of jobs that have ended and whose end is not on disk yet."""
    SWEPT = "next:swept"
    """Exists until the next sweep is due."""
    SWEPT_UNTIL = "next:swept-until"
    """The time (ms) by which the last sweep went."""
    COUNTERS = "next:counters"
    """Hash: the counters of statistics.py, from zero since Redis was last empty."""
    SERIES = "next:series:"
    """Hash: the series' record."""
    SERIES_FILES = "next:series-files:"
    """Hash: the FileInfo of each `{step}/{name}` (JSON)."""
    SERIES_JUMPS = "next:series-jumps:"
    """Hash: the job and the files of the jump after each step (JSON)."""
    TENANT_SERIES = "next:tenant-series:"
    """Sorted set of the tenant's series ids, all of score 0."""
    QUOTAS = "next:quotas"
    """Hash: the quotas of tenants that have none of their own."""
    TENANT_QUOTAS = "next:tenant-quotas:"
    """Hash: the tenant's own quotas."""
    TENANT_BYTES = "next:tenant-bytes:"
    """How many bytes the tenant's blobs and results have."""
    TENANT_BLOBS = "next:tenant-blobs:"
    """Hash: the bytes of each of the tenant's blobs by its sha256."""
    TENANT_HOLDS = "next:tenant-holds:"
    """Hash: what each hold reserves of the tenant's quotas (JSON), by the hold's id."""
    TENANT_HOLD_ENDS = "next:tenant-hold-ends:"
    """Sorted set of the ids of holds; score: when the hold ends unless it is renewed (ms)."""
    TENANT_PARKED = "next:tenant-parked:"
    """Sorted set of the tenant's queued jobs that wait until fewer of its jobs run; score as in QUEUED."""
    PARKING = "next:parking"
    """Set of the tenants that have parked jobs."""
    API_KEY = "next:api-key:"
    """Hash: the API key's record, with a digest in place of its secret."""
    API_KEYS = "next:api-keys"
    """Set of the ids of all API keys that were ever made."""
    SESSION = "next:session:"
    """Id and fingerprint of the API key that began the session. Followed by the digest of its token."""
    INVITATION = "next:invitation:"
    """Id and fingerprint of the API key that it stands for. Followed by the digest of its token."""
    API_KEY_BUCKET = "next:api-key-bucket:"
    """When the API key's bucket of requests is full again (ms)."""


class Connection(Redis):
    """A pool of connections that notices a dead peer, and tries again.

    Everything the store sends may be sent twice, so a lost reply is a reason to repeat and nothing more; an
    invitation alone, which is good for once, may be lost with it. No PING is sent first, which would hang as
    long, and which Redis refuses where it takes no writes. What still fails after that is `StoreUnavailable`.
    """

    @classmethod
    def open(cls, url: str) -> "Connection":
        """Make the pool; nothing is sent before the first command."""
        # Five tries: about 2 s for a Redis that restarts, and 20 s at most for one that hangs. A worker that
        # beats every 10 s knows before its lease of 30 s ends that it could not prolong it.
        retry = Retry(ExponentialWithJitterBackoff(base=0.25, cap=1.5), retries=4)
        return cls._open(url, 3, retry, [RedisConnectionError, RedisTimeoutError])

    @classmethod
    def open_for_probes(cls, url: str) -> "Connection":
        """Make a pool that does not wait for Redis: who asks how it is wants to be told that it hangs."""
        # A second try is for a connection from before a restart of Redis, which is found to be dead.
        retry: Retry = Retry(NoBackoff(), retries=1, supported_errors=(RedisConnectionError,))
        return cls._open(url, 2, retry, [RedisConnectionError])

    @classmethod
    def _open(cls, url: str, seconds: float, retry: Retry, retry_on: list[type[Exception]]) -> "Connection":
        connection = cls.from_url(
            url,
            decode_responses=True,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=retry,
            retry_on_error=retry_on,
        )
        return cast(Connection, connection)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command, as redis-py does.

        Raises:
            StoreUnavailable: no working Redis was found in all tries, or it takes no such command just now.
        """
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except RedisError as error:
            refusal = _refusal(error)
            if refusal is not None:
                raise StoreUnavailable(refusal) from error
            if isinstance(error, AuthenticationError):
                raise StoreUnavailable(
                    f"Redis refuses the password of NEXTRAPOLATE_REDIS_URL, or wants one ({error}): write "
                    "the right one there, and start this process again"
                ) from error
            if not isinstance(error, (RedisConnectionError, RedisTimeoutError)):
                raise
            raise StoreUnavailable(
                f"Redis does not answer as it should ({error}); try again later"
            ) from error

    def fields(self, key: str) -> dict[str, str]:
        """Read a hash; empty where there is none."""
        return cast(dict[str, str], self.hgetall(key))

    def load(self, name: str) -> Script:
        """Read the script lua/{name}.lua, behind what all of them share."""
        return self.register_script(_script(name))

    def now_ms(self) -> int:
        """Ask Redis for its time, in milliseconds."""
        seconds, microseconds = self.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def new_id(self) -> tuple[str, int]:
        """Make an id that sorts by Redis' time, and give that time in milliseconds."""
        now_ms = self.now_ms()
        return make_id(now_ms), now_ms

    def check_redis(self) -> None:
        """Check that this package can use this Redis, and warn where it may lose what was acknowledged.

        Raises:
            StoreIncompatible: it is too old, or evicts what is needed.
        """
        info = self.info()  # and not CONFIG GET, which a managed Redis may refuse
        version = str(info["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_REDIS:
            oldest = ".".join(map(str, _OLDEST_REDIS))
            raise StoreIncompatible(f"this is Redis {version}: run Redis {oldest} or newer, or Valkey")
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if policy.startswith("allkeys"):  # volatile-* evict nothing but sessions and rate limits
            raise StoreIncompatible(
                f"this Redis evicts jobs when its memory is full (maxmemory-policy {policy}): set "
                "maxmemory-policy to noeviction"
            )
        if info.get("aof_enabled") == 0:
            _log.warning(
                "this Redis has no append-only file: what it loses at a restart has to be restored with "
                "`nextrapolate-server rebuild`; set appendonly to yes and appendfsync to always"
            )

    def mark(self) -> None:
        """Mark the data in it as this package's, and as whole."""
        self.set(RedisKey.SCHEMA_VERSION, SCHEMA_VERSION, nx=True)

    def is_marked(self) -> bool:
        """Tell whether there is data in it, and all of it."""
        return bool(self.exists(RedisKey.SCHEMA_VERSION))

    def check_schema(self) -> None:
        """Check that the data is there, and that this package can use it.

        Raises:
            StoreLost: there is none.
            StoreIncompatible: it was written by another version.
        """
        schema = int(self.get(RedisKey.SCHEMA_VERSION) or 0)
        if not schema:
            raise StoreLost(
                "Redis is empty, but the data folder holds records of jobs, series, keys or quotas: "
                "restore them with `nextrapolate-server rebuild`, or start fresh in another folder"
            )
        if schema != SCHEMA_VERSION:
            whose = "a newer" if schema > SCHEMA_VERSION else "an older"
            raise StoreIncompatible(
                f"the data was written by {whose} nextrapolate (schema {schema}, this one knows "
                f"{SCHEMA_VERSION}): run that version, or give this one a Redis and a data folder of its "
                "own"
            )


def _refusal(error: RedisError) -> str | None:
    """Say why Redis refuses what it would take at another time, and what to do; None for all other errors."""
    found = _REFUSAL.search(f"{error.status_code or ''} {error}".lstrip())  # redis-py cuts off codes it knows
    return f"Redis refuses this at the moment ({found[1]}): {_REFUSALS[found[1]]}" if found else None


@cache
def _script(name: str) -> str:
    folder = resources.files("nextrapolate_store") / "lua"
    names = ", ".join(f"{key.name.lower()} = '{key}'" for key in RedisKey)
    parts = [(folder / f"{part}.lua").read_text() for part in ("quotas", "shared", name)]
    return "\n".join([f"local key = {{{names}}}", *parts])
