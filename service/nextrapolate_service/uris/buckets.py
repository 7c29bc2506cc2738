"""s3://: the buckets that the operator lists, with the operator's credentials."""

from contextlib import suppress

from nextrapolate.schemas import ADAPTER_CONFIG, ADAPTER_MODEL
from nextrapolate_service.errors import RefusedUriError
from nextrapolate_service.uris.parsing import S3Uri
from nextrapolate_service.uris.pinned import Pinned
from nextrapolate_store.content import PICKLED_MODEL, pickled
from nextrapolate_store.errors import RemoteNotFound
from nextrapolate_store.records import S3File
from nextrapolate_store.remote.buckets import look_up


def pin(uri: S3Uri, buckets: frozenset[str]) -> Pinned:
    """Find the two objects of an adapter.

    Raises:
        RefusedUriError: the bucket is none of those listed.
        RemoteNotFound: an object is not there, or this server may not read it.
        RemoteUnavailable: the store does not answer.
        BrokenAdapter: the weights are a pickle.
    """
    if uri.bucket not in buckets:
        listed = ", ".join(sorted(buckets)) or "none, so that s3:// is off"
        raise RefusedUriError(
            f"s3://{uri.bucket} is refused: it is not one of the buckets that this server reads from "
            f"({listed}): ask its operator to add it, or upload to a series",
            field="checkpoints",
        )
    return Pinned(_model(uri), look_up(uri.bucket, f"{uri.key}/{ADAPTER_CONFIG}"))


def _model(uri: S3Uri) -> S3File:
    try:
        return look_up(uri.bucket, f"{uri.key}/{ADAPTER_MODEL}")
    except RemoteNotFound:
        with suppress(RemoteNotFound):
            look_up(uri.bucket, f"{uri.key}/{PICKLED_MODEL}")
            raise pickled(PICKLED_MODEL) from None
        raise
