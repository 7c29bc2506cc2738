"""A Hugging Face Hub, as one caller sees it.

Only the token that is given is ever sent: what this machine itself is logged in with stays here.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from nextrapolate_store.errors import RemoteNotFound, RemoteUnavailable
from nextrapolate_store.files import NO_SPACE
from nextrapolate_store.records import HubFile

_ANSWERS_WITHIN_SECONDS = 10.0
_PIECE_BYTES = 1 << 20

disable_progress_bars()


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit.

    Attributes:
        files: each of its files by its path.
        git_ids: what git calls their content: the same id is the same content.
    """

    files: Mapping[str, HubFile]
    git_ids: Mapping[str, str]


def snapshot(endpoint: str, repo: str, revision: str, token: str | None) -> Snapshot:
    """Resolve a revision to its commit, and list what is there.

    Raises:
        RemoteNotFound: this token shows no such repository or revision.
        RemoteUnavailable: the Hub does not answer.
    """
    api = HfApi(endpoint=endpoint, token=token or False)
    with _asking(f"{repo}@{revision}"):
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=_ANSWERS_WITHIN_SECONDS)
    if info.sha is None:
        raise RemoteUnavailable(f"{endpoint} does not say which commit {repo}@{revision} is: is it a Hub?")
    siblings = info.siblings or []
    files = {
        sibling.rfilename: HubFile(
            endpoint=endpoint,
            repo=repo,
            commit=info.sha,
            path=sibling.rfilename,
            bytes=sibling.size or 0,
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
        )
        for sibling in siblings
    }
    return Snapshot(files, {sibling.rfilename: sibling.blob_id or "" for sibling in siblings})


def pieces(file: HubFile, token: str | None, scratch: Path | None = None) -> Iterator[bytes]:
    """Download a file, and give it in pieces; it lies below `scratch` meanwhile, or among temporary files.

    Raises:
        RemoteNotFound: this token shows it no more.
        RemoteUnavailable: the Hub does not answer, or breaks off and cannot go on.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".hub-") as folder:
        with _asking(f"{file.repo}@{file.commit}/{file.path}"):
            path = hf_hub_download(
                file.repo,
                file.path,
                revision=file.commit,
                endpoint=file.endpoint,
                token=token or False,
                local_dir=folder,
                cache_dir=folder,  # never a copy that somebody else has brought to this machine
                etag_timeout=_ANSWERS_WITHIN_SECONDS,
                library_name="nextrapolate",
            )
        with Path(path).open("rb") as content:
            while piece := content.read(_PIECE_BYTES):
                yield piece


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turn what the Hub's client raises into the errors of this package."""
    try:
        yield
    except HFValidationError as error:
        raise RemoteNotFound(f"{what} cannot be on a Hub ({error}): fix the name") from None
    except LocalEntryNotFoundError as error:  # the client's way to say that it got no answer
        raise _unavailable(what, error.__cause__ or error) from error
    except (EntryNotFoundError, HfHubHTTPError) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 404
        if status not in (400, 401, 403, 404):
            raise _unavailable(what, error) from error
        raise RemoteNotFound(
            f"the Hub shows no {what} to this caller (it answers {status}): fix the name, or, if it is "
            "private or gated, send a token that may read it as X-Hub-Token"
        ) from None
    except (HTTPError, OSError, RuntimeError) as error:  # RuntimeError: hf_xet's own
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise  # the disk is this machine's
        raise _unavailable(what, error) from error


def _unavailable(what: str, error: BaseException) -> RemoteUnavailable:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return RemoteUnavailable(
        f"{what} cannot be fetched from the Hub at the moment ({reason}): try again later"
    )
