"""From a request to a job: checkpoints are resolved, and checked as far as that is cheap."""

from dataclasses import dataclass, field
from itertools import pairwise

from nextrapolate.schemas import MOST_CHECKPOINTS, JobRequest, digest_of
from nextrapolate_service import uris
from nextrapolate_service.disk import require_space
from nextrapolate_service.errors import (
    MismatchedAdaptersError,
    StepOrderError,
    StillSeriesError,
    TooManyCheckpointsError,
)
from nextrapolate_service.method_checks import check_task
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.uris.disk import open_resolved
from nextrapolate_service.wakeup import WakeUps
from nextrapolate_service.webhooks.addresses import check_webhook
from nextrapolate_store.content.adapter_config import MAX_CONFIG_BYTES, ConfigFacts, checked_config
from nextrapolate_store.credentials import Credential
from nextrapolate_store.errors import UnusableContent
from nextrapolate_store.records import FileSource, InputAdapter, JobInputs, JobRecord
from nextrapolate_store.remote.fetching import Fetcher
from nextrapolate_store.store import Store


@dataclass(frozen=True)
class Submission:
    """A job as its caller wants it.

    Attributes:
        hub_token: the caller's own, for hf:// checkpoints.
    """

    tenant: str
    request: JobRequest
    idempotency_key: str | None = None
    hub_token: str | None = field(default=None, repr=False)


def submit(
    store: Store,
    settings: ServiceSettings,
    wake_ups: WakeUps,
    submission: Submission,
) -> JobRecord:
    """Accept a job, and wake a worker up for it.

    A request that has made a job before is answered with it, whatever has become of its checkpoints since.

    Raises:
        UnusableError: the checkpoints cannot be extrapolated, whoever tries.
        DiskReserveError, QuotaExceeded: there is no room for results, or for what has to be fetched.
        StoreError: the series is not there, a checkpoint is not there for this caller or cannot be used, or
            the idempotency key is taken.
    """
    request, key = submission.request, submission.idempotency_key
    digest = digest_of(request)
    if key is not None and (made := store.jobs.submitted(submission.tenant, key, digest)):
        return made
    store.check_folder()  # first, or what lies on the right one would be said to be missing
    require_space(settings)
    if request.webhook is not None:
        check_webhook(request.webhook.url, settings.webhook_networks)
    inputs = _inputs(store, settings, submission)
    to_fetch = _bytes_to_fetch(settings, submission.tenant, inputs)
    require_space(settings, to_fetch)
    job = store.jobs.submit(
        submission.tenant,
        _without_secret(request),
        inputs,
        idempotency_key=key,
        body_digest=digest,
        credentials=_credentials(submission, inputs),
        bytes_to_fetch=to_fetch,
    )
    wake_ups.send(job.id)
    return job


def _inputs(store: Store, settings: ServiceSettings, submission: Submission) -> JobInputs:
    """Find what the job reads; nothing is fetched for a job that its steps alone make impossible.

    So the steps are judged twice: until a configuration says otherwise, a run has started at the base model,
    which is where the fewest checkpoints will do.
    """
    tenant, request = submission.tenant, submission.request
    if request.series is not None:
        inputs = store.series.inputs(tenant, request.series, request.until)
        _check_steps(request, [adapter.step for adapter in inputs.checkpoints])
    else:
        until = request.until
        named = uris.parse_checkpoints(request.checkpoints or ())
        checkpoints = [checkpoint for checkpoint in named if until is None or checkpoint.step <= until]
        _check_steps(request, [checkpoint.step for checkpoint in checkpoints])
        inputs = JobInputs(uris.resolve(checkpoints, settings, tenant, submission.hub_token))
    _check_movement(inputs)
    if not _checked_configs(store, tenant, inputs).starts_at_base:
        check_task(request, [adapter.step for adapter in inputs.checkpoints], starts_at_base=False)
    return inputs


def _bytes_to_fetch(settings: ServiceSettings, tenant: str, inputs: JobInputs) -> int:
    """How much will come, without what the tenant has from an earlier job."""
    fetcher = Fetcher(settings.store.data_dir, tenant, hub_token=None)
    remote = {adapter.model for adapter in inputs.checkpoints if not isinstance(adapter.model, FileSource)}
    return sum(file.bytes for file in remote if fetcher.known(file) is None)


def _credentials(submission: Submission, inputs: JobInputs) -> dict[Credential, str]:
    """What the job needs of what its caller lends."""
    lent: dict[Credential, str] = {}
    if submission.hub_token and any(adapter.model.kind == "hub" for adapter in inputs.checkpoints):
        lent["hub-token"] = submission.hub_token
    webhook = submission.request.webhook
    if webhook is not None and webhook.secret is not None:
        lent["webhook-secret"] = webhook.secret
    return lent


def _without_secret(request: JobRequest) -> JobRequest:
    """The request as it may be kept."""
    if request.webhook is None:
        return request
    return request.model_copy(update={"webhook": request.webhook.model_copy(update={"secret": None})})


def _check_steps(request: JobRequest, steps: list[int]) -> None:
    if len(steps) > MOST_CHECKPOINTS:
        raise TooManyCheckpointsError(
            f"a job takes at most {MOST_CHECKPOINTS} checkpoints, but there are {len(steps)}: end at an "
            "earlier step (`until`), or post every second checkpoint to another series",
            field="series" if request.series else "checkpoints",
        )
    for before, after in pairwise(steps):
        if after <= before:
            what = f"step {after} comes twice" if after == before else f"step {after} comes after {before}"
            raise StepOrderError(
                f"{what}: list each checkpoint once, in the order of its step", field="checkpoints"
            )
    check_task(request, steps, starts_at_base=True)


def _check_movement(inputs: JobInputs) -> None:
    """Refuse a series of one and the same file; whether others moved is seen when they are read."""
    first, *others = inputs.checkpoints
    if others and all(adapter.model == first.model for adapter in others):
        raise StillSeriesError(
            f"the checkpoints at steps {first.step} to {others[-1].step} are all the same file, so nothing "
            "has moved: check that the run trains its adapter, and which file is posted at each step",
            field="checkpoints",
        )


def _checked_configs(store: Store, tenant: str, inputs: JobInputs) -> ConfigFacts:
    """Read every configuration once, as checkpoints of one run mostly share one; give what the first says."""
    read: dict[FileSource, ConfigFacts] = {}
    first = inputs.checkpoints[0]
    for adapter in inputs.checkpoints:
        if adapter.config not in read:
            read[adapter.config] = _facts(store, tenant, adapter)
        rank, expected = read[adapter.config].rank, read[first.config].rank
        if rank != expected:
            raise MismatchedAdaptersError(
                f"the checkpoint at step {adapter.step} has rank {rank}, but the one at step {first.step} "
                f"has {expected}: all checkpoints of a series must come from one run",
                field="checkpoints",
            )
    return read[first.config]


def _facts(store: Store, tenant: str, adapter: InputAdapter) -> ConfigFacts:
    with open_resolved(store.blobs.path(adapter.config, tenant)) as file:
        document = file.read(MAX_CONFIG_BYTES + 1)
    try:
        return checked_config(document)
    except UnusableContent as error:
        raise type(error)(f"step {adapter.step}: {error}", field="checkpoints") from None
