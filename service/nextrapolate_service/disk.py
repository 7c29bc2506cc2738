"""The disk of the data folder, which is kept from filling up: with `appendfsync always`, Redis ends then."""

import os
import shutil
from dataclasses import dataclass

from nextrapolate_service.errors import DiskReserveError
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.files import temporary_in

_LEAST_RESERVE = 2 << 30
_RESERVE_SHARE = 0.05


@dataclass(frozen=True)
class Space:
    """What is left on the disk.

    Attributes:
        free_bytes: for an unprivileged process.
        reserve_bytes: of this, below which nothing new is accepted.
    """

    free_bytes: int
    reserve_bytes: int


def find_space(settings: ServiceSettings) -> Space:
    """Ask the disk.

    Raises:
        OSError: the data folder is not there.
    """
    disk, reserve = shutil.disk_usage(settings.store.data_dir), settings.disk_reserve_bytes
    if reserve is None:
        reserve = max(_LEAST_RESERVE, int(_RESERVE_SHARE * disk.total))
    return Space(disk.free, reserve)


def require_space(settings: ServiceSettings, coming_bytes: int = 0) -> None:
    """Make sure that so much more can be written.

    Raises:
        DiskReserveError: the reserve would be touched.
        OSError: the data folder is not there.
    """
    space = find_space(settings)
    free, reserve = space.free_bytes, space.reserve_bytes
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
