"""hf://: repositories of one Hub, at the commit that a revision is when the job is submitted."""

from collections.abc import Iterable
from concurrent.futures import Executor

from nextrapolate.schemas import ADAPTER_CONFIG, ADAPTER_MODEL
from nextrapolate_service.uris.parsing import HubUri
from nextrapolate_service.uris.pinned import Pinned
from nextrapolate_store.content import PICKLED_MODEL, pickled
from nextrapolate_store.errors import RemoteNotFound
from nextrapolate_store.records import HubFile
from nextrapolate_store.remote.hub import snapshot


class Hub:
    """What one caller sees of the Hub, with one look at each revision. Safe to share between threads.

    Raises:
        RemoteNotFound: a repository or a revision is not there for this token.
        RemoteUnavailable: the Hub does not answer.
    """

    def __init__(self, uris: Iterable[HubUri], endpoint: str, token: str | None, pool: Executor) -> None:
        revisions = {(uri.repo, uri.revision) for uri in uris}
        looks = {
            (repo, revision): pool.submit(snapshot, endpoint, repo, revision, token)
            for repo, revision in revisions
        }
        self._snapshots = {revision: look.result() for revision, look in looks.items()}
        self._same: dict[str, HubFile] = {}

    def pin(self, uri: HubUri) -> Pinned:
        """Find the two files of an adapter; of configurations with the same content always the same one.

        Raises:
            RemoteNotFound: a file is not there.
            BrokenAdapter: the weights are a pickle.
        """
        config = self._file(uri, ADAPTER_CONFIG)
        content = self._snapshots[uri.repo, uri.revision].git_ids[config.path]
        return Pinned(self._file(uri, ADAPTER_MODEL), self._same.setdefault(f"{uri.repo} {content}", config))

    def _file(self, uri: HubUri, name: str) -> HubFile:
        files = self._snapshots[uri.repo, uri.revision].files
        folder = f"{uri.path}/" if uri.path else ""
        if (found := files.get(folder + name)) is not None:
            return found
        if name == ADAPTER_MODEL and folder + PICKLED_MODEL in files:
            raise pickled(PICKLED_MODEL)
        raise RemoteNotFound(
            f"there is no {folder}{name} in {uri.repo} at {uri.revision}: fix the URI, or push the file there"
        )
