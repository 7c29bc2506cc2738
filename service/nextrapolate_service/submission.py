"""From a request to a job: checkpoints are resolved, and checked as far as that is cheap."""

import hashlib
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from nextrapolate.schemas import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    BacktestCreate,
    CheckpointRef,
    InspectCreate,
    JobCreate,
    JobRequest,
)
from nextrapolate_service import uris
from nextrapolate_service.disk import require_space
from nextrapolate_service.errors import (
    MismatchedAdaptersError,
    MissingCheckpointError,
    RefusedUriError,
    StepOrderError,
    TooFewCheckpointsError,
)
from nextrapolate_service.method_checks import check_method
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.wakeup import WakeUps
from nextrapolate_store.content import check_file
from nextrapolate_store.content.adapter_config import MAX_CONFIG_BYTES, check_config
from nextrapolate_store.errors import BrokenAdapter, UnusableContent
from nextrapolate_store.records import FileSource, InputAdapter, JobInputs, JobRecord
from nextrapolate_store.store import Store

_INSPECTED = 3
"""Checkpoints of an inspection: a line through fewer says nothing."""


def submit(
    store: Store,
    settings: ServiceSettings,
    wake_ups: WakeUps,
    tenant: str,
    request: JobRequest,
    idempotency_key: str | None,
) -> JobRecord:
    """Accept a job, and wake a worker up for it.

    Raises:
        UnusableError: the checkpoints cannot be extrapolated, whoever tries.
        DiskReserveError: there is no room for results.
        StoreError: the series is not there, or the idempotency key is taken.
    """
    require_space(store.blobs, settings)
    if request.series is not None:
        inputs = store.series.inputs(tenant, request.series, request.until)
    else:
        inputs = _inputs_by_uri(request, uris.FileRoots(settings.file_roots, settings.store.data_dir))
    _check(store, tenant, request, inputs)
    digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
    job = store.jobs.submit(tenant, request, inputs, idempotency_key=idempotency_key, body_digest=digest)
    wake_ups.send(job.id)
    return job


def _inputs_by_uri(request: JobRequest, roots: uris.FileRoots) -> JobInputs:
    adapters = [_adapter_by_uri(reference, roots) for reference in request.checkpoints or ()]
    until = request.until
    return JobInputs(tuple(adapter for adapter in adapters if until is None or adapter.step <= until))


def _adapter_by_uri(reference: CheckpointRef, roots: uris.FileRoots) -> InputAdapter:
    uri = uris.parse(reference.uri)
    if not isinstance(uri, uris.FileUri):
        scheme = reference.uri.partition("://")[0]
        raise RefusedUriError(
            f"this server does not fetch {scheme}:// yet: download the checkpoint and upload it to a series",
            field="checkpoints",
        )
    step = reference.step if reference.step is not None else uris.step_of(reference.uri)
    model = _model_below(roots, uri.path)
    config = uris.resolve_below(roots, uri.path / ADAPTER_CONFIG)
    try:
        with uris.open_resolved(model) as file:
            check_file(ADAPTER_MODEL, file)
    except UnusableContent as error:
        raise type(error)(f"{reference.uri}: {error}", field="checkpoints") from None
    return InputAdapter(step, FileSource("file", str(model)), FileSource("file", str(config)))


def _model_below(roots: uris.FileRoots, folder: Path) -> Path:
    try:
        return uris.resolve_below(roots, folder / ADAPTER_MODEL)
    except RefusedUriError:
        with suppress(RefusedUriError):
            pickled = uris.resolve_below(roots, folder / "adapter_model.bin")
            raise BrokenAdapter(
                f"file://{pickled} is a pickle, which can run code when it is loaded: load it with PEFT and "
                "save it again with save_pretrained (safe_serialization=True)",
                field="checkpoints",
            ) from None
        raise


def _check(store: Store, tenant: str, request: JobRequest, inputs: JobInputs) -> None:
    steps = [adapter.step for adapter in inputs.checkpoints]
    for before, after in pairwise(steps):
        if after <= before:
            what = f"step {after} comes twice" if after == before else f"step {after} comes after {before}"
            raise StepOrderError(
                f"{what}: list each checkpoint once, in the order of its step", field="checkpoints"
            )
    _check_steps(request, steps)
    _check_ranks(store, tenant, inputs)


def _check_steps(request: JobRequest, steps: list[int]) -> None:
    """Refuse a task for which the checkpoints of these steps will not do."""
    field = "series" if request.series else "checkpoints"
    match request:
        case JobCreate(method=method):
            check_method(method, steps, field)
        case BacktestCreate(at=at, until=target):
            for step, name in ((at, "at"), (target, "at + horizon_steps")):
                if step not in steps:
                    raise MissingCheckpointError(
                        f"there is no checkpoint at step {step} ({name}): a backtest predicts one that is "
                        f"known from another; there are {', '.join(map(str, steps))}",
                        field=field,
                    )
        case InspectCreate():
            if len(steps) < _INSPECTED:
                raise TooFewCheckpointsError(
                    f"an inspection needs at least {_INSPECTED} checkpoints, there are {len(steps)}: "
                    "collect more of them",
                    field=field,
                )


def _check_ranks(store: Store, tenant: str, inputs: JobInputs) -> None:
    """Read every configuration once; checkpoints of one run mostly share one."""
    ranks: dict[FileSource, int] = {}
    first = inputs.checkpoints[0]
    for adapter in inputs.checkpoints:
        if adapter.config not in ranks:
            ranks[adapter.config] = _rank(store, tenant, adapter)
        if ranks[adapter.config] != ranks[first.config]:
            raise MismatchedAdaptersError(
                f"the checkpoint at step {adapter.step} has rank {ranks[adapter.config]}, the one at step "
                f"{first.step} has {ranks[first.config]}: a series has to come from one run",
                field="checkpoints",
            )


def _rank(store: Store, tenant: str, adapter: InputAdapter) -> int:
    with uris.open_resolved(store.blobs.path(adapter.config, tenant)) as file:
        document = file.read(MAX_CONFIG_BYTES + 1)
    try:
        return check_config(document[:MAX_CONFIG_BYTES])
    except UnusableContent as error:
        raise type(error)(f"step {adapter.step}: {error}", field="checkpoints") from None
