"""What the store refuses, and why.

StoreError
├── StoreUnavailable         Redis cannot be reached, or cannot write
├── StoreIncompatible        Redis is too old or evicts, or the data in it is of another version
├── StoreLost                Redis is empty, the data folder is not
├── StoreMismatched          the data folder is not the one that belongs to this Redis
├── StoreNotEmpty            there is nothing to rebuild: Redis has its data
├── RecordUnreadable         a record cannot be read, or is of another version
│   └── RecordDamaged        it is of no version: its content was damaged
├── NotFound
│   ├── JobNotFound          no such job of this tenant
│   ├── SeriesNotFound       no such series of this tenant
│   ├── BlobNotFound         no such blob of this tenant
│   ├── ArtifactNotFound     the job has no such result
│   └── KeyNotFound          no API key of that id
├── ResultLost               a result that the job has made is not on the disk any more
├── KeyRefused               an API key that is not let in
│   ├── KeyUnknown           it is none of this store's
│   ├── KeyRevoked           it was revoked
│   └── SessionEnded         the session that stood for it has ended
├── QuotaExceeded            the tenant has no more room for this
├── JobFinished              the job ended before it could be cancelled
├── JobNotSucceeded          the job has no adapter that could have been swapped in
├── IdempotencyMismatch      the key was used before, with another body
├── IdempotencyInFlight      the same request is being worked on right now
├── FileTaken                the checkpoint has another file of that name already
├── JumpTaken                the series has another jump after this step already
├── SeriesFull               the series has as many checkpoints or jumps as any may
├── CheckpointIncomplete     a checkpoint of the series lacks a file
├── DigestMismatch           what arrived is not what was announced
├── UnusableContent          a file that cannot be part of a checkpoint; `field` is what of it is meant
│   ├── BrokenAdapter        it is not what its name says
│   ├── UnsupportedAdapter   a feature whose delta is not B A
│   └── FileTooLarge         more bytes than such a file may have
├── RemoteNotFound           there is no such file at the Hub or in the bucket, as far as the caller may see
├── RemoteChanged            it is not any more what it was when it was pinned
├── RemoteUnavailable        the Hub or the bucket does not answer
└── InvalidCursor            a cursor or an event id this store never gave out

Each is made of one sentence, and so survives pickling. It says what to do, unless that is a request of the
service, of which the store knows nothing.
"""

from nextrapolate_store.tenants import Quota, Usage


class StoreError(Exception):
    """Base of all errors of the store."""


class StoreUnavailable(StoreError):
    """Redis cannot be reached, or cannot write; the call may be repeated later."""


class StoreIncompatible(StoreError):
    """Redis is too old or evicts, or the data in it is of a version that this package cannot use."""


class StoreLost(StoreError):
    """Redis is empty, the data folder is not."""


class StoreMismatched(StoreError):
    """The data folder is not the one that belongs to this Redis."""


class StoreNotEmpty(StoreError):
    """There is nothing to rebuild: Redis has its data."""


class RecordUnreadable(StoreError):
    """A record, on disk or in Redis, cannot be read, or is of another version."""


class RecordDamaged(RecordUnreadable):
    """A record on disk is of no version: its content was damaged."""


class NotFound(StoreError):
    """Base of what is not there, or is another tenant's."""


class JobNotFound(NotFound):
    """No such job of this tenant."""


class SeriesNotFound(NotFound):
    """No such series of this tenant."""


class BlobNotFound(NotFound):
    """No such blob of this tenant."""


class ArtifactNotFound(NotFound):
    """The job has no such result."""


class KeyNotFound(NotFound):
    """No API key of that id."""


class ResultLost(StoreError):
    """A result that the job has made is not on the disk any more."""


class KeyRefused(StoreError):
    """Base of API keys that are not let in."""


class KeyUnknown(KeyRefused):
    """The key is none of this store's."""


class KeyRevoked(KeyRefused):
    """The key was revoked."""


class SessionEnded(KeyRefused):
    """The session has ended, or never began."""


class QuotaExceeded(StoreError):
    """The tenant has no more room for this; `quota` says of what, `usage` how much there is."""

    def __init__(self, detail: str, *, quota: Quota | None = None, usage: Usage | None = None) -> None:
        super().__init__(detail)
        self.quota = quota
        self.usage = usage


class JobFinished(StoreError):
    """The job ended before it could be cancelled."""


class JobNotSucceeded(StoreError):
    """The job has no adapter that could have been swapped in."""


class IdempotencyMismatch(StoreError):
    """The idempotency key was used before, with another body."""


class IdempotencyInFlight(StoreError):
    """The same request, by its idempotency key, is being worked on right now."""


class FileTaken(StoreError):
    """The checkpoint has another file of that name already; `field` is the name."""

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.field = field


class JumpTaken(StoreError):
    """The series has another jump after this step already."""


class SeriesFull(StoreError):
    """The series has as many checkpoints or jumps as any may."""


class CheckpointIncomplete(StoreError):
    """A checkpoint of the series lacks a file."""


class DigestMismatch(StoreError):
    """What arrived is not what was announced."""


class UnusableContent(StoreError):
    """A file that cannot be part of a checkpoint; `field` is what of it is meant."""

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.field = field


class BrokenAdapter(UnusableContent):
    """A file is not what its name says."""


class UnsupportedAdapter(UnusableContent):
    """The adapter uses a feature whose effect is not a plain LoRA delta."""


class FileTooLarge(UnusableContent):
    """More bytes than a file of that name may have."""


class RemoteNotFound(StoreError):
    """There is no such file at the Hub or in the bucket, as far as the caller may see."""


class RemoteChanged(StoreError):
    """The file is not any more what it was when it was pinned."""


class RemoteUnavailable(StoreError):
    """The Hub or the bucket does not answer; it may later."""


class InvalidCursor(StoreError):
    """A cursor or an event id that this store never gave out."""
