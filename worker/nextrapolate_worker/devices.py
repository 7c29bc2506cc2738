"""Where the maths is done.

`python -m nextrapolate_worker.devices cuda:1` ends with 1, and says why, where that is not on this machine.
"""

import sys

import torch

from nextrapolate_worker.errors import NoSuchDevice


def find_device(configured: str) -> str:
    """Give the torch device that NEXTRAPOLATE_DEVICE means.

    Raises:
        NoSuchDevice: it is not on this machine.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if configured == "auto":
        return "cuda" if count else "cpu"
    if configured != "cpu" and int(configured.partition(":")[2] or 0) >= count:
        raise NoSuchDevice(
            f"NEXTRAPOLATE_DEVICE is {configured}, but torch sees {count} GPUs: set it to one that is "
            "there, or to auto, or fix the driver"
        )
    return configured


if __name__ == "__main__":
    try:
        find_device(sys.argv[1])
    except NoSuchDevice as error:
        sys.exit(str(error))
