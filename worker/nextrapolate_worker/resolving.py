"""Stage 1: the sources of a job become files on this machine's disk, fetched where they lie elsewhere."""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from nextrapolate.schemas import ADAPTER_MODEL
from nextrapolate_numerics import AdapterFiles
from nextrapolate_numerics.progress import part_of
from nextrapolate_store.blobs import Blobs
from nextrapolate_store.errors import (
    BlobNotFound,
    RemoteChanged,
    RemoteNotFound,
    RemoteUnavailable,
    UnsupportedAdapter,
    UnusableContent,
)
from nextrapolate_store.files import version_of
from nextrapolate_store.records import FileSource, InputAdapter, RemoteFile, Source
from nextrapolate_store.remote.fetching import Fetcher
from nextrapolate_worker.errors import (
    CheckpointChanged,
    CheckpointGone,
    CheckpointLost,
    CheckpointUnsupported,
    CheckpointUnusable,
    SourceUnavailable,
    WorkerError,
)
from nextrapolate_worker.files import digest
from nextrapolate_worker.messages import Start

_AT_ONCE = 4
_FETCHED = 0.9  # of the whole, where anything is: to hash what is there takes less
_SPEAKS_EVERY_SECONDS = 60.0  # while files are on their way, each by a client that gives up by itself


@dataclass(frozen=True)
class Resolved:
    """The job's files on this machine's disk."""

    checkpoints: tuple[AdapterFiles, ...]
    jumps: tuple[AdapterFiles, ...]
    digests: Mapping[int, str]
    """sha256 of each checkpoint's weights, by step."""
    jump_digests: Sequence[str]
    """sha256 of each jump's."""
    config_digests: Sequence[str]
    """sha256 of each configuration: those of the checkpoints, then those of the jumps."""


def resolve(work: Start, on_progress: Callable[[float], None]) -> Resolved:
    """Find the job's files, and fetch what is not here yet.

    Raises:
        WorkerError: a file has gone, has changed, cannot be used or cannot be had.
    """
    blobs = Blobs(work.data_dir)
    fetched = _fetch(work, part_of(on_progress, 0.0, _FETCHED))
    hashed = part_of(on_progress, _FETCHED, 1 - _FETCHED) if fetched else on_progress

    def path(step: int, source: Source) -> Path:
        try:
            if not isinstance(source, FileSource):
                return blobs.path(FileSource("blob", fetched[source]), work.tenant)
            found = blobs.path(source, work.tenant)
        except BlobNotFound as error:
            raise CheckpointLost(
                f"checkpoint {step}: its upload is no longer on the server's disk: upload it again, to the "
                "same series, or have the operator restore the data folder; then run the job again"
            ) from error
        _check_unchanged(step, found, source.version)
        return found

    def files(adapter: InputAdapter) -> AdapterFiles:
        return AdapterFiles(
            adapter.step, path(adapter.step, adapter.model), path(adapter.step, adapter.config)
        )

    checkpoints = tuple(files(adapter) for adapter in work.inputs.checkpoints)
    jumps = tuple(files(adapter) for adapter in work.inputs.jumps)
    adapters = (*work.inputs.checkpoints, *work.inputs.jumps)
    on_disk, digests = (*checkpoints, *jumps), list[str]()
    with ThreadPoolExecutor(work.computing.threads) as pool:
        for found in pool.map(_weights_digest, adapters, on_disk):
            digests.append(found)
            hashed(len(digests) / len(on_disk))
    return Resolved(
        checkpoints,
        jumps,
        digests=dict(zip((checkpoint.step for checkpoint in checkpoints), digests, strict=False)),
        jump_digests=digests[len(checkpoints) :],
        config_digests=list(map(_config_digest, adapters, on_disk)),
    )


def _check_unchanged(step: int, path: Path, version: str | None) -> None:
    if not path.is_file():
        run = path.parent.parent
        if not run.is_dir():  # another worker may have it
            raise SourceUnavailable(
                f"checkpoint {step}: {socket.gethostname()} has no folder {run}, which was there at submit: "
                "give every worker the folders of NEXTRAPOLATE_FILE_ROOTS, at the same paths as the API, or, "
                "if the run was removed, upload the checkpoints to a series, which keeps them"
            )
        raise CheckpointGone(
            f"checkpoint {step}: {path.name} was there when the job was submitted, but is gone now: submit "
            "without it, or upload the checkpoints to a series, which keeps them"
        )
    # At submit all links were followed: one that is on the way now has been put there since.
    if version is not None and (version_of(path.stat()) != version or os.path.realpath(path) != str(path)):
        raise CheckpointChanged(
            f"checkpoint {step}: {path.name} has changed since the job was submitted: submit it again, or "
            "upload the checkpoints to a series, which keeps them as they are"
        )


def _weights_digest(adapter: InputAdapter, files: AdapterFiles) -> str:
    return _undamaged(adapter, adapter.model, files.model)


def _config_digest(adapter: InputAdapter, files: AdapterFiles) -> str:
    return _undamaged(adapter, adapter.config, files.config)


def _undamaged(adapter: InputAdapter, source: Source, path: Path) -> str:
    """Hash a file, and hold a blob to its name; the caller's own have no such, and were held to a version."""
    sha256 = digest(path)
    is_blob = not isinstance(source, FileSource) or source.kind == "blob"
    if is_blob and sha256 != path.name:
        again = "upload it again, to the same series, and " if isinstance(adapter.model, FileSource) else ""
        raise CheckpointLost(
            f"checkpoint {adapter.step}: the server's disk has damaged its file {path.name}: have the "
            f"operator restore it in the data folder, or delete it there; then {again}run the job again"
        )
    return sha256


def _fetch(work: Start, on_progress: Callable[[float], None]) -> dict[RemoteFile, str]:
    """Fetch the weights that lie elsewhere; gives the sha256 of each."""
    adapters = {
        adapter.model: adapter.step
        for adapter in work.inputs.checkpoints
        if not isinstance(adapter.model, FileSource)
    }
    fetcher = Fetcher(work.data_dir, work.tenant, hub_token=work.hub_token, scratch=work.folder)
    total, done = sum(file.bytes for file in adapters), 0
    sha256: dict[RemoteFile, str] = {}
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        fetching = {pool.submit(fetcher.fetch, file, ADAPTER_MODEL): file for file in adapters}
        while fetching:
            for future in wait(fetching, _SPEAKS_EVERY_SECONDS, FIRST_COMPLETED).done:
                file = fetching.pop(future)
                try:
                    sha256[file] = future.result().sha256
                except (UnusableContent, RemoteNotFound, RemoteChanged, RemoteUnavailable) as error:
                    raise _in_the_jobs_terms(adapters[file], error) from error
                done += file.bytes
            on_progress(done / total)
    finally:
        pool.shutdown(cancel_futures=True)
    return sha256


def _in_the_jobs_terms(step: int, error: Exception) -> WorkerError:
    kinds: Mapping[type[Exception], type[WorkerError]] = {
        RemoteNotFound: CheckpointGone,
        RemoteChanged: CheckpointChanged,
        RemoteUnavailable: SourceUnavailable,
        UnsupportedAdapter: CheckpointUnsupported,
    }
    return kinds.get(type(error), CheckpointUnusable)(f"checkpoint {step}: {error}")
