"""What computed a result: the packages on which its bytes depend."""

import platform
from importlib.metadata import version

_PACKAGES = ("nextrapolate", "torch", "safetensors")


def versions() -> dict[str, str]:
    """Give the version of each, and of Python."""
    return {package: version(package) for package in _PACKAGES} | {"python": platform.python_version()}
