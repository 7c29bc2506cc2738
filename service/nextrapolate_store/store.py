"""One handle for everything that is kept."""

from typing import Self

from nextrapolate_store import rebuild
from nextrapolate_store.blobs import BlobStore, within_quotas
from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.credentials import CredentialStore
from nextrapolate_store.deliveries import DeliveryStore
from nextrapolate_store.deployment import Deployment
from nextrapolate_store.files import make_folders
from nextrapolate_store.job_folders import JobFolders
from nextrapolate_store.jobs import JobStore
from nextrapolate_store.journal import Journal
from nextrapolate_store.keys import KeyStore
from nextrapolate_store.quotas import QuotaStore
from nextrapolate_store.recorder import Recorder
from nextrapolate_store.series import SeriesStore
from nextrapolate_store.sessions import SessionStore
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.statistics import StatisticsStore
from nextrapolate_store.sweeper import Sweeper


class Store:
    """Jobs, series, blobs, API keys and quotas. Safe to share between threads; each process opens its own."""

    def __init__(self, redis: Connection, settings: StoreSettings) -> None:
        self._redis = redis
        self._data_dir = settings.data_dir
        self._probe = Connection.open_for_probes(settings.redis_url)
        self._deployment = Deployment(redis, settings.data_dir)
        self.job_folders = JobFolders(settings.data_dir)
        self._journal = Journal(settings.data_dir, self._deployment, self.job_folders)
        self.quotas = QuotaStore(redis, self._journal)
        self.blobs = BlobStore(settings.data_dir, within_quotas(self.quotas, self._deployment))
        self.credentials = CredentialStore(redis, self._deployment, self._journal, settings.data_dir)
        self.jobs = JobStore(redis, self._journal, self.credentials, self.quotas, settings)
        self.series = SeriesStore(redis, self._journal, self.quotas, self.blobs, self.jobs, self.job_folders)
        self.keys = KeyStore(redis, self._journal)
        self.sessions = SessionStore(redis, self.keys)

        self.statistics = StatisticsStore(redis)
        self.deliveries = DeliveryStore(redis, self._journal, self._deployment)
        self.recorder = Recorder(redis, self.jobs, self._journal, self.quotas, self.blobs, self.job_folders)
        self.sweeper = Sweeper(
            redis, self._deployment, self._journal, self.quotas, self.blobs, self.job_folders, settings
        )

    @classmethod
    def open(cls, settings: StoreSettings) -> Self:
        """Connect, make the data folder, and check that this package can use what is there.

        Raises:
            StoreUnavailable: Redis does not answer.
            StoreIncompatible: Redis is too old or evicts, or the data in it is of another version.
            StoreLost: Redis is empty, the data folder is not.
            StoreMismatched: the data folder is not the one that belongs to this Redis.
        """
        store = cls._connect(settings)
        store._redis.check_redis()
        store.check_folder()
        if store._journal.is_empty():
            store._redis.mark()
        store._redis.check_schema()
        store._deployment.join()
        store._deployment.complete()
        return store

    @classmethod
    def rebuild(cls, settings: StoreSettings, *, add_missing: bool) -> rebuild.Rebuilt:
        """Bring everything in Redis back from the records in the data folder, as `rebuild` says."""
        store = cls._connect(settings)
        try:
            parts = (store._deployment, store.keys, store.quotas, store.series, store.jobs)
            rebuilt = rebuild.Rebuild(store._redis, store._journal, *parts).run(add_missing=add_missing)
            store._deployment.complete()
            return rebuilt
        finally:
            store.close()

    @classmethod
    def _connect(cls, settings: StoreSettings) -> Self:
        make_folders(settings.data_dir.absolute())
        return cls(Connection.open(settings.redis_url), settings)

    def ping(self) -> None:
        """Write to Redis, as every job has to, and look whether data and data folder are still there.

        Redis is asked once, and has two seconds to answer.

        Raises:
            StoreUnavailable: Redis does not answer, or cannot write.
            StoreLost: it has lost its data since the store was opened.
            StoreMismatched: the data folder is not there any more, or another one is in its place.
        """
        self._probe.set(RedisKey.PING, 1)
        self._probe.check_schema()
        Deployment(self._probe, self._data_dir).check()

    def check_answers(self) -> None:
        """Ask Redis once for something that it may know though it takes no writes; it has two seconds.

        Raises:
            StoreUnavailable: it does not answer.
            StoreLost: it has lost its data since the store was opened.
        """
        self._probe.check_schema()

    def check_folder(self) -> None:
        """Look whether the data folder is the one that belongs to this Redis.

        Raises:
            StoreUnavailable: Redis does not answer.
            StoreMismatched: it is another one, or is not mounted.
        """
        self._deployment.check()

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
        self._probe.close()
