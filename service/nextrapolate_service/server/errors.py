"""Why the embedded server does not start; each is a sentence that says what to do.

StartupError
├── PortInUseError          somebody else listens there
├── DataFolderError         nothing can be kept there
├── DataFolderInUseError    another server runs on the same data
├── RedisNotFound           there is no Redis on this machine
└── PartFailedError         Redis, a worker or the API ended before it was of any use
"""


class StartupError(Exception):
    """Base of what keeps the embedded server from starting."""


class PortInUseError(StartupError):
    """Somebody else listens there, or nobody may."""


class DataFolderError(StartupError):
    """Nothing can be kept there: it is a file, or may not be written to."""


class DataFolderInUseError(StartupError):
    """Another server runs on the same data."""


class RedisNotFound(StartupError):
    """There is no Redis on this machine."""


class PartFailedError(StartupError):
    """Redis, a worker or the API ended before it was of any use."""
