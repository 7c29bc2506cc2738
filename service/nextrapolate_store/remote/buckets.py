"""Buckets of S3, and of what speaks like it.

Where they are, and with which credentials, is the operator's to say: obstore reads AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL and so on from the environment, or asks for the machine's
own role.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store

from nextrapolate_store.errors import RemoteChanged, RemoteNotFound, RemoteUnavailable
from nextrapolate_store.records import S3File

_PIECE_BYTES = 1 << 20


def look_up(bucket: str, key: str) -> S3File:
    """Find an object, and pin it.

    Raises:
        RemoteNotFound: there is none, or this server may not read it.
        RemoteUnavailable: the store does not answer.
    """
    with _asking(bucket, key):
        found = obstore.head(_store(bucket), key)
    if found["e_tag"] is None:
        raise RemoteNotFound(f"s3://{bucket}/{key} has no entity tag to pin it by: upload it to a series")
    return S3File(bucket, key, found["e_tag"], found["version"], found["size"])


def pieces(file: S3File) -> Iterator[bytes]:
    """Download an object in pieces.

    Raises:
        RemoteNotFound: it is gone.
        RemoteChanged: there is another object of that key.
        RemoteUnavailable: the store does not answer, breaks off, or does not let this machine read it.
    """
    pinned: obstore.GetOptions = {"if_match": file.etag}
    if file.version is not None:
        pinned["version"] = file.version
    with _asking(file.bucket, file.key, looked_up=True):
        found = obstore.get(_store(file.bucket), file.key, options=pinned)
        for piece in found.stream(min_chunk_size=_PIECE_BYTES):
            yield bytes(piece)


@cache
def _store(bucket: str) -> S3Store:
    return S3Store(
        bucket,
        client_options={
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(minutes=10),
            "allow_http": True,  # where the operator's endpoint says so: S3's own is https
        },
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )


@contextmanager
def _asking(bucket: str, key: str, *, looked_up: bool = False) -> Iterator[None]:
    """Turn what obstore raises into the errors of this package."""
    what = f"s3://{bucket}/{key}"
    try:
        yield
    except (FileNotFoundError, ValueError):  # ValueError: no object can have such a key
        raise RemoteNotFound(f"there is no {what}: fix the URI") from None
    except (PermissionDeniedError, UnauthenticatedError):
        if looked_up:  # so one machine of this server may, and it is no caller's fault that another may not
            raise RemoteUnavailable(
                f"{socket.gethostname()} may not read {what}, which the API has found: give the API and "
                "every worker the same AWS_... settings, of an account that may"
            ) from None
        raise RemoteNotFound(
            f"this server may not read {what}: fix the URI, or give the server access"
        ) from None
    except PreconditionError:
        raise RemoteChanged(f"{what} is no longer what it was when the job was submitted") from None
    except BaseError as error:
        reason = str(error).partition("\n")[0]
        raise RemoteUnavailable(
            f"{what} cannot be fetched at the moment ({reason}): try again later"
        ) from error
