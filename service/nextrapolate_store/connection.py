"""The connection to Redis: its keys, its scripts, its timeouts and retries."""

import logging
from enum import StrEnum
from importlib import resources
from typing import Any, cast

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.commands.core import Script
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from ulid import ULID

from nextrapolate_store.errors import StoreIncompatible, StoreLost, StoreUnavailable

_log = logging.getLogger(__name__)

SCHEMA_VERSION = 2
_OLDEST_REDIS = (6, 2)  # ZRANGE ... BYLEX REV, and XRANGE from an exclusive id
_PASSING = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError)
_BUSY = "BUSY "
"""How an answer begins while another script runs; redis-py has no error of its own for it."""


class Key(StrEnum):
    """Every key of the store; those that end in a colon are followed by the id of what they are about.

    The scripts get the same names as the table `key`, in lower case.
    """

    SCHEMA_VERSION = "next:schema_version"
    DEPLOYMENT = "next:deployment"
    """Id of the data folder that belongs to this Redis."""
    PING = "next:ping"
    JOB = "next:job:"
    """Hash: the job's record."""
    EVENTS = "next:events:"
    """Stream: what happened to the job."""
    TENANT_JOBS = "next:tenant-jobs:"
    """Sorted set of the tenant's job ids, all of score 0; followed by `:{state}`, those in that state."""
    QUEUED = "next:queued"
    """Sorted set of job ids by when they were created (ms)."""
    LEASES = "next:leases"
    """Sorted set of job ids by when their lease ends (ms)."""
    IDEMPOTENCY = "next:idempotency:"
    """Hash: digest of the request, and the job it made."""
    IDEMPOTENCY_ENDS = "next:idempotency-ends"
    """Sorted set of the former by when they are forgotten (ms)."""
    ENDED = "next:ended"
    """Sorted set of the ids of jobs that ended, by when (ms)."""
    TOLD = "next:told"
    """Those of the former whose events are still kept."""
    DELIVERIES = "next:deliveries"
    """Sorted set of the ids of jobs that ended and whose webhook is to be told, by when it is due (ms)."""
    TENANT_TELLING = "next:tenant-telling:"
    """Sorted set of those of the tenant's that are being told, by when another process may tell them (ms)."""
    TENANT_UNTOLD = "next:tenant-untold:"
    """Sorted set, as DELIVERIES, of those that wait until fewer of the tenant's are being told."""
    UNTOLD = "next:untold"
    """Set of the tenants that have such."""
    TAKEN = "next:taken:"
    """What a claim of webhooks has taken (JSON), while it may be asked for again; followed by its token."""
    UNRECORDED = "next:unrecorded"
    """Set of the ids of jobs that ended, and whose end is not on disk yet."""
    SWEPT = "next:swept"
    """There for as long as no process needs to sweep."""
    COUNTERS = "next:counters"
    """Hash: what was counted since Redis was empty; statistics.py reads it."""
    SERIES = "next:series:"
    """Hash: the series' record."""
    SERIES_FILES = "next:series-files:"
    """Hash: `{step}/{name}` to FileInfo."""
    SERIES_JUMPS = "next:series-jumps:"
    """Hash: step to the job and its files."""
    TENANT_SERIES = "next:tenant-series:"
    """Sorted set of the tenant's series ids, all of score 0."""
    QUOTAS = "next:quotas"
    """Hash: the quotas of tenants that have none of their own."""
    TENANT_QUOTAS = "next:tenant-quotas:"
    """Hash: quotas of the tenant's own."""
    TENANT_BYTES = "next:tenant-bytes:"
    """How many bytes of blobs and results the tenant has stored."""
    TENANT_BLOBS = "next:tenant-blobs:"
    """Hash: the sha256 of each blob among them to its bytes."""
    TENANT_HOLDS = "next:tenant-holds:"
    """Hash: id of what is on its way to the amounts of quotas (JSON) that are held for it."""
    TENANT_HOLD_ENDS = "next:tenant-hold-ends:"
    """Sorted set of the former by when they end without being renewed (ms)."""
    TENANT_PARKED = "next:tenant-parked:"
    """Sorted set, as QUEUED, of queued jobs that wait until fewer of the tenant's jobs run."""
    PARKING = "next:parking"
    """Set of the tenants that have parked jobs."""
    API_KEY = "next:api-key:"
    """Hash: the key's record, with a digest in place of its secret."""
    API_KEYS = "next:api-keys"
    """Set of the ids of all API keys ever made."""
    SESSION = "next:session:"
    """Id and fingerprint of the API key that began it; followed by the digest of the session's token."""
    INVITATION = "next:invitation:"
    """The same for an invitation to begin one."""
    API_KEY_BUCKET = "next:api-key-bucket:"
    """When (ms) the key's bucket of requests is full again."""


class Connection(Redis):
    """A pool of connections that notices a dead peer, and tries again.

    Everything the store sends may be sent twice, so a lost reply is a reason to repeat and nothing more. What
    still fails after that is `StoreUnavailable`.
    """

    @classmethod
    def open(cls, url: str) -> "Connection":
        """Make the pool; nothing is sent before the first command."""
        # Five tries: about 2 s for a Redis that restarts, and 20 s at most for one that hangs. A worker that
        # beats every 10 s knows before its lease of 30 s ends that it could not prolong it.
        retry = Retry(ExponentialWithJitterBackoff(base=0.25, cap=1.5), retries=4)
        connection = cls.from_url(
            url,
            decode_responses=True,
            socket_timeout=3,
            socket_connect_timeout=3,
            health_check_interval=5,
            retry=retry,
            retry_on_error=[RedisConnectionError, RedisTimeoutError],
        )
        return cast(Connection, connection)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command, as redis-py does.

        Raises:
            StoreUnavailable: no working Redis was found in all tries.
        """
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except RedisError as error:
            if not (isinstance(error, _PASSING) or str(error).startswith(_BUSY)):
                raise
            raise StoreUnavailable(
                f"Redis does not answer as it should ({error}); try again later"
            ) from error

    def fields(self, key: str) -> dict[str, str]:
        """Read a hash; empty where there is none."""
        return cast(dict[str, str], self.hgetall(key))

    def load(self, name: str) -> Script:
        """Read the script lua/{name}.lua, behind what all of them share."""
        folder = resources.files("nextrapolate_store") / "lua"
        names = ", ".join(f"{key.name.lower()} = '{key}'" for key in Key)
        parts = [(folder / f"{part}.lua").read_text() for part in ("quotas", "shared", name)]
        return self.register_script("\n".join([f"local key = {{{names}}}", *parts]))

    def now_ms(self) -> int:
        """Ask Redis for its time, in milliseconds."""
        seconds, microseconds = self.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def new_id(self) -> tuple[str, int]:
        """Make an id that sorts by Redis' time, and give that time in milliseconds."""
        now_ms = self.now_ms()
        return str(ULID.from_timestamp(now_ms)), now_ms

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
                "this Redis has no append-only file: what it loses when it restarts has to be brought back "
                "with `nextrapolate-server rebuild`; set appendonly to yes and appendfsync to always"
            )

    def mark(self) -> None:
        """Mark the data in it as this package's, and as whole."""
        self.set(Key.SCHEMA_VERSION, SCHEMA_VERSION, nx=True)

    def is_marked(self) -> bool:
        """Tell whether there is data in it, and all of it."""
        return bool(self.exists(Key.SCHEMA_VERSION))

    def check_schema(self) -> None:
        """Check that the data is there, and that this package can use it.

        Raises:
            StoreLost: there is none.
            StoreIncompatible: it was written by another version.
        """
        schema = int(self.get(Key.SCHEMA_VERSION) or 0)
        if not schema:
            raise StoreLost(
                "Redis is empty, but the data folder holds records of jobs, series, keys or quotas: bring "
                "them back with `nextrapolate-server rebuild`, or begin anew in another folder"
            )
        if schema != SCHEMA_VERSION:
            whose = "a newer" if schema > SCHEMA_VERSION else "an older"
            raise StoreIncompatible(
                f"the data was written by {whose} nextrapolate (schema {schema}, this one knows "
                f"{SCHEMA_VERSION}): run that one, or give this one a Redis and a data folder of its own"
            )
