"""What a job's files are called where its caller reads it."""

from pathlib import Path

from nextrapolate.schemas import ADAPTER_CONFIG, ADAPTER_MODEL, JobError
from nextrapolate_store.blobs import Blobs
from nextrapolate_store.errors import BlobNotFound
from nextrapolate_store.records import FileSource, Source
from nextrapolate_store.remote.fetching import Fetcher
from nextrapolate_worker.messages import Start


def in_the_callers_terms(error: JobError, work: Start) -> JobError:
    """Call uploads by their steps: their place in the store means nothing to the caller."""
    adapters = [(f"checkpoint-{adapter.step}", adapter) for adapter in work.inputs.checkpoints]
    adapters += [(f"the jump after step {adapter.step}", adapter) for adapter in work.inputs.jumps]
    detail = error.detail
    for name, adapter in adapters:
        for source, file in ((adapter.model, ADAPTER_MODEL), (adapter.config, ADAPTER_CONFIG)):
            if (path := _place_in_the_store(source, work)) is not None:
                detail = detail.replace(str(path), f"{name}/{file}")
    return error.model_copy(update={"detail": detail})


def _place_in_the_store(source: Source, work: Start) -> Path | None:
    if not isinstance(source, FileSource):
        fetched = Fetcher(work.data_dir, work.tenant, hub_token=None).known(source)
        sha256 = fetched.sha256 if fetched else ""
    elif source.kind == "blob":
        sha256 = source.location
    else:
        return None
    try:
        return Blobs(work.data_dir).path(FileSource("blob", sha256), work.tenant)
    except BlobNotFound:
        return None
