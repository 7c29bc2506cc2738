"""From typed checkpoints to what a job reads."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from nextrapolate.schemas import ADAPTER_CONFIG, ADAPTER_MODEL
from nextrapolate_service.errors import RefusedUriError
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.uris import buckets, disk
from nextrapolate_service.uris.hub import Hub
from nextrapolate_service.uris.parsing import Checkpoint, FileUri, HubUri, S3Uri
from nextrapolate_service.uris.pinned import Pinned
from nextrapolate_store.content import largest
from nextrapolate_store.errors import UnusableContent
from nextrapolate_store.records import FileSource, InputAdapter, Source
from nextrapolate_store.remote.fetching import Fetcher

_AT_ONCE = 8


def resolve(
    checkpoints: Sequence[Checkpoint], settings: ServiceSettings, tenant: str, hub_token: str | None
) -> tuple[InputAdapter, ...]:
    """Find the files of the checkpoints, pin them, and fetch the configurations.

    Raises:
        RefusedUriError: this server does not read from there, or not that much.
        UnusableContent: a file cannot be used, as far as that shows.
        RemoteNotFound: a file is not there for this caller.
        RemoteUnavailable: the Hub or the bucket does not answer.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        hub_uris = [checkpoint.uri for checkpoint in checkpoints if isinstance(checkpoint.uri, HubUri)]
        hub = Hub(hub_uris, settings.hub_endpoint, hub_token, pool)
        pinned = list(pool.map(lambda checkpoint: _pin(checkpoint, settings, hub), checkpoints))
        fetcher = Fetcher(settings.store.data_dir, tenant, hub_token=hub_token)
        configs = _fetch_configs(checkpoints, pinned, fetcher, pool)
    return tuple(
        InputAdapter(checkpoint.step, files.model, configs[files.config])
        for checkpoint, files in zip(checkpoints, pinned, strict=True)
    )


def _pin(checkpoint: Checkpoint, settings: ServiceSettings, hub: Hub) -> Pinned:
    with _named(checkpoint):
        match checkpoint.uri:
            case FileUri(path):
                pinned = disk.pin(path, disk.FileRoots(settings.file_roots, settings.store.data_dir))
            case HubUri() as uri:
                pinned = hub.pin(uri)
            case S3Uri() as uri:
                pinned = buckets.pin(uri, settings.s3_buckets)
    for name, file in ((ADAPTER_MODEL, pinned.model), (ADAPTER_CONFIG, pinned.config)):
        limit = largest(name, settings.max_upload_bytes)
        if not isinstance(file, FileSource) and file.bytes > limit:
            raise RefusedUriError(
                f"{checkpoint.text} is refused: {name} has {file.bytes} bytes, but this server accepts at "
                f"most {limit}",
                field="checkpoints",
            )
    return pinned


def _fetch_configs(
    checkpoints: Sequence[Checkpoint], pinned: Sequence[Pinned], fetcher: Fetcher, pool: Executor
) -> dict[Source, FileSource]:
    """Fetch each configuration once, and give what stands for it in the job."""
    first: dict[Source, Checkpoint] = {}
    for checkpoint, files in zip(checkpoints, pinned, strict=True):
        first.setdefault(files.config, checkpoint)

    def fetch(config: Source) -> FileSource:
        if isinstance(config, FileSource):
            return config
        with _named(first[config]):
            return FileSource("blob", fetcher.fetch(config, ADAPTER_CONFIG).sha256)

    return dict(zip(first, pool.map(fetch, first), strict=True))


@contextmanager
def _named(checkpoint: Checkpoint) -> Iterator[None]:
    """Say which checkpoint it is whose content cannot be used."""
    try:
        yield
    except UnusableContent as error:
        raise type(error)(f"{checkpoint.text}: {error}", field="checkpoints") from None
