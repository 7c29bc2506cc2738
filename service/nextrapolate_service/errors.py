"""What the service refuses, and with which status.

ServiceError                       base; `field` is what of the request is meant, str() says what to do
├── UnauthorizedError          401 no key
├── MissingScopeError          403 the key does not open this
├── ForeignFormError           403 a form that was not made for this session
├── RateLimitedError           429 the key came too often
├── TooManyStreamsError        429 the tenant follows as many jobs as it may
├── MalformedHeaderError       400 a header that cannot be read
├── MalformedFormError         400 a form that cannot be read
├── UploadBrokenOffError       400 the caller went away before the file was whole
├── ResultsNotReadyError       409 the job has no results yet, or never will
├── RangeRefusedError          416 ranges that cannot be served
├── DiskReserveError           507 the disk is nearly full
├── DiskBrokenError            503 the disk is read-only, or does not answer
└── UnusableError              422 well-formed, and yet it cannot be used:
    ├── RefusedUriError            a URI this server does not read
    ├── RefusedWebhookError        an address this server does not tell anything
    ├── UnknownStepError           no step given, and none in the path
    ├── StepOrderError             steps repeated or not ascending
    ├── TooFewCheckpointsError     less than the method needs
    ├── TooManyCheckpointsError    more than a job may have
    ├── StillSeriesError           all checkpoints are one file
    ├── MissingCheckpointError     a backtest or a method asks for one that is not there
    ├── ScoreCountError            rewards or scores, but not one for each checkpoint
    └── MismatchedAdaptersError    the checkpoints are not of one run
"""

from collections.abc import Mapping
from typing import ClassVar, Literal


class ServiceError(Exception):
    """Base of what this package raises on purpose."""

    status: ClassVar[int]
    code: ClassVar[str]
    retryable: bool = False
    blame: ClassVar[Literal["user", "server"]] = "user"
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.field = field


class UnauthorizedError(ServiceError):
    """No key."""

    status = 401
    code = "unauthorized"


class MissingScopeError(ServiceError):
    """The key does not open this."""

    status = 403
    code = "scope-missing"

    def __init__(self, detail: str, *, scope: str) -> None:
        super().__init__(detail, field="Authorization")
        # RFC 6750, section 3.1
        challenge = f'Bearer realm="nextrapolate", error="insufficient_scope", scope="{scope}"'
        self.headers = {"WWW-Authenticate": challenge}


class ForeignFormError(ServiceError):
    """A form that none of our pages made for this session."""

    status = 403
    code = "foreign-form"


class RateLimitedError(ServiceError):
    """The key came too often."""

    status = 429
    code = "rate-limited"
    retryable = True

    def __init__(self, detail: str, *, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_after_seconds)}


class TooManyStreamsError(ServiceError):
    """The tenant follows as many jobs as it may."""

    status = 429
    code = "too-many-streams"
    retryable = True
    headers: Mapping[str, str] = {"Retry-After": "10"}


class MalformedHeaderError(ServiceError):
    """A header that cannot be read."""

    status = 400
    code = "malformed-header"


class MalformedFormError(ServiceError):
    """A form that cannot be read."""

    status = 400
    code = "malformed-form"


class UploadBrokenOffError(ServiceError):
    """The caller went away before the file was whole."""

    status = 400
    code = "upload-broken-off"
    retryable = True


class ResultsNotReadyError(ServiceError):
    """The job has no results yet, or never will."""

    status = 409
    code = "job-not-succeeded"

    def __init__(self, detail: str, *, retryable: bool) -> None:
        super().__init__(detail)
        self.retryable = retryable


class RangeRefusedError(ServiceError):
    """Byte ranges that cannot be served."""

    status = 416
    code = "range-refused"

    def __init__(self, detail: str, *, size: int) -> None:
        super().__init__(detail, field="Range")
        self.headers = {"Content-Range": f"bytes */{size}"}


class DiskReserveError(ServiceError):
    """The disk is nearly full: Redis, which flushes every write, would stop with it."""

    status = 507
    code = "disk-nearly-full"
    retryable = True
    blame = "server"
    headers: Mapping[str, str] = {"Retry-After": "60"}


class DiskBrokenError(ServiceError):
    """The data folder's disk takes nothing, or does not answer."""

    status = 503
    code = "disk-broken"
    retryable = True
    blame = "server"
    headers: Mapping[str, str] = {"Retry-After": "60"}


class UnusableError(ServiceError):
    """Well-formed, and yet it cannot be used."""

    status = 422


class RefusedUriError(UnusableError):
    """A URI that this server does not read."""

    code = "refused-uri"


class RefusedWebhookError(UnusableError):
    """A webhook at an address that this server does not tell anything."""

    code = "refused-webhook"


class UnknownStepError(UnusableError):
    """No step is given, and none can be read from the path."""

    code = "unknown-step"


class StepOrderError(UnusableError):
    """Steps are repeated, or do not ascend."""

    code = "step-order"


class TooFewCheckpointsError(UnusableError):
    """The series is shorter than the method needs."""

    code = "too-few-checkpoints"


class TooManyCheckpointsError(UnusableError):
    """More checkpoints than a job may have."""

    code = "too-many-checkpoints"


class StillSeriesError(UnusableError):
    """All checkpoints are one file: nothing was trained between them."""

    code = "nothing-moved"


class MissingCheckpointError(UnusableError):
    """A backtest or a method asks for a checkpoint that is not there."""

    code = "missing-checkpoint"


class ScoreCountError(UnusableError):
    """Rewards or scores are given, but not one for each checkpoint."""

    code = "score-count"


class MismatchedAdaptersError(UnusableError):
    """The checkpoints are not of one run."""

    code = "mismatched-adapters"
