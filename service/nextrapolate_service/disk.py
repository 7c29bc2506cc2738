"""The space that is kept free: with `appendfsync always`, Redis ends when the disk is full."""

import shutil

from nextrapolate_service.errors import DiskReserveError
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.blobs import BlobStore

_LEAST_RESERVE = 2 << 30
_RESERVE_SHARE = 0.05


def reserve_bytes(settings: ServiceSettings) -> int:
    """Free space below which nothing new is accepted."""
    if settings.disk_reserve_bytes is not None:
        return settings.disk_reserve_bytes
    return max(_LEAST_RESERVE, int(_RESERVE_SHARE * shutil.disk_usage(settings.store.data_dir).total))


def require_space(blobs: BlobStore, settings: ServiceSettings, coming_bytes: int = 0) -> None:
    """Make sure that so much more can be written.

    Raises:
        DiskReserveError: the reserve would be touched.
    """
    free, reserve = blobs.free_bytes(), reserve_bytes(settings)
    if free - coming_bytes < reserve:
        raise DiskReserveError(
            f"the server's disk has {free >> 20} MiB free and keeps {reserve >> 20} MiB of them in reserve: "
            "free some space in its data folder, then try again"
        )
