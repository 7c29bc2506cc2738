"""One handle for everything that is kept."""

from nextrapolate_store.blobs import BlobStore, make_folder
from nextrapolate_store.connection import Connection, Key
from nextrapolate_store.jobs import JobStore
from nextrapolate_store.keys import KeyStore
from nextrapolate_store.series import SeriesStore
from nextrapolate_store.settings import StoreSettings


class Store:
    """Jobs, series, blobs and API keys. Safe to share between threads; each process opens its own."""

    def __init__(self, redis: Connection, settings: StoreSettings) -> None:
        self._redis = redis
        self.blobs = BlobStore(settings.data_dir)
        self.jobs = JobStore(redis, self.blobs, settings)
        self.series = SeriesStore(redis, self.blobs, self.jobs)
        self.keys = KeyStore(redis)

    @classmethod
    def open(cls, settings: StoreSettings) -> "Store":
        """Connect, make the data folder, and check that this package can use what is there.

        Raises:
            StoreUnavailable: Redis does not answer.
            StoreIncompatible: Redis, or the data in it, is of a version that this package cannot use.
        """
        redis = Connection.open(settings.redis_url)
        redis.check_versions()
        make_folder(settings.data_dir.absolute())
        store = cls(redis, settings)
        store.blobs.remove_abandoned()
        return store

    def ping(self) -> None:
        """Write to Redis, as every job has to.

        Raises:
            StoreUnavailable: Redis does not answer, or cannot write.
        """
        self._redis.set(Key.PING, 1)

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
