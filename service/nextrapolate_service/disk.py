"""The disk of the data folder, which is kept from filling up: with `appendfsync always`, Redis ends then."""

import os
import shutil

from nextrapolate_service.errors import DiskReserveError
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.files import temporary_in

_LEAST_RESERVE = 2 << 30
_RESERVE_SHARE = 0.05


def reserve_bytes(settings: ServiceSettings) -> int:
    """Free space below which nothing new is accepted."""
    if settings.disk_reserve_bytes is not None:
        return settings.disk_reserve_bytes
    return max(_LEAST_RESERVE, int(_RESERVE_SHARE * shutil.disk_usage(settings.store.data_dir).total))


def free_bytes(settings: ServiceSettings) -> int:
    """Space left on the disk for an unprivileged process."""
    return shutil.disk_usage(settings.store.data_dir).free


def require_space(settings: ServiceSettings, coming_bytes: int = 0) -> None:
    """Make sure that so much more can be written.

    Raises:
        DiskReserveError: the reserve would be touched.
    """
    free, reserve = free_bytes(settings), reserve_bytes(settings)
    if free - coming_bytes < reserve:
        coming = f", and {coming_bytes >> 20} MiB are coming" if coming_bytes else ""
        raise DiskReserveError(
            f"the server's disk has {free >> 20} MiB free and keeps {reserve >> 20} MiB in reserve{coming}: "
            "free some space in its data folder, or lower NEXTRAPOLATE_DISK_RESERVE_BYTES, then try again"
        )


def require_writable(settings: ServiceSettings) -> None:
    """Write a file and flush it to disk, as every upload has to.

    Raises:
        OSError: that is not possible.
    """
    probe = temporary_in(settings.store.data_dir)
    try:
        with probe.open("xb") as file:
            file.write(b"0")
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)
