"""Every request and response of the service, as pydantic models: the contract of client, service and worker.

Requests forbid unknown fields, so that a misspelt parameter is an answer and not a silence.
Responses allow them, so that an older client reads a newer server.
The methods and their parameters are written down in method_schemas.py, and are part of it.
"""

from base64 import b64decode
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from nextrapolate.method_schemas import AlphaRlMethod as AlphaRlMethod
from nextrapolate.method_schemas import AutoMethod as AutoMethod
from nextrapolate.method_schemas import AutoregressionMethod as AutoregressionMethod
from nextrapolate.method_schemas import DareMethod as DareMethod
from nextrapolate.method_schemas import ExpoMethod as ExpoMethod
from nextrapolate.method_schemas import MaecMethod as MaecMethod
from nextrapolate.method_schemas import Method as Method
from nextrapolate.method_schemas import MethodParameters as MethodParameters
from nextrapolate.method_schemas import NextMethod as NextMethod
from nextrapolate.method_schemas import NoneMethod as NoneMethod
from nextrapolate.method_schemas import RelexMethod as RelexMethod
from nextrapolate.method_schemas import SoupMethod as SoupMethod
from nextrapolate.method_schemas import WeightExtrapolationMethod as WeightExtrapolationMethod
from nextrapolate.method_schemas import WsmMethod as WsmMethod

Step = Annotated[
    int, Field(ge=0, description="training step of the optimizer, never the index of a saved checkpoint")
]
Labels = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=256)]]

MOST_CHECKPOINTS = 1024
"""How many checkpoints one job may have."""

ADAPTER_MODEL = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
CheckpointFile = Literal["adapter_model.safetensors", "adapter_config.json"]


class Request(BaseModel):
    """Base of what callers send: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Response(BaseModel):
    """Base of what the service answers: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


# Methods ------------------------------------------------------------------------------------------


class MethodInfo(Response):
    """One entry of GET /methods."""

    name: str
    title: str
    paper: str | None
    minimum_checkpoints: int
    parameters: dict[str, Any] = Field(
        description="JSON schema of the method's parameters, defaults included"
    )


class MethodList(Response):
    """All methods this server runs."""

    methods: list[MethodInfo]


# Series -------------------------------------------------------------------------------------------


class SeriesCreate(Request):
    """A run whose checkpoints will be posted."""

    name: str = Field(min_length=1, max_length=256)
    base_model: str | None = Field(
        None, max_length=512, description="name of the base model, for people to read"
    )
    lora_config: dict[str, Any] | None = Field(
        None,
        description="the run's adapter_config.json; stands in for checkpoints that bring none of their own",
    )
    labels: Labels = Field(default_factory=dict)


class FileInfo(Response):
    """One stored file."""

    bytes: int
    sha256: str


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="sha256 in hex")]


class Announcement(Request):
    """The files of a checkpoint by their digests: what the service has already need not be sent."""

    files: dict[CheckpointFile, Sha256] = Field(min_length=1)


class Missing(Response):
    """Answer to an announcement."""

    missing: list[CheckpointFile] = Field(description="files that still have to be sent")


class CheckpointInfo(Response):
    """What has arrived of one checkpoint, and what stands in its way."""

    step: int
    files: dict[str, FileInfo]
    problems: list[str] = Field(default_factory=list, description="empty when the checkpoint can be used")


class JumpCreate(Request):
    """The job's adapter was swapped into the running trainer after this step."""

    step: Step
    job: str


class JumpInfo(JumpCreate):
    """A jump of the series: increments after `step` are measured from the job's adapter."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Series(Response):
    """A run, and what has arrived of it."""

    id: str
    name: str
    base_model: str | None
    labels: Labels
    created_at: datetime
    checkpoints: list[CheckpointInfo]
    jumps: list[JumpInfo]


class SeriesPage(Response):
    """One page of GET /series, newest first."""

    items: list[Series]
    next_cursor: str | None


# Jobs ---------------------------------------------------------------------------------------------


class CheckpointRef(Request):
    """A checkpoint by URI, or several by one whose path or revision holds a range: {10..150..10}."""

    uri: str = Field(
        min_length=1,
        max_length=4096,
        description="hf://org/repo@revision/folder, s3://bucket/prefix or file:///folder",
        examples=["hf://org/run@main/checkpoint-{10..150..10}"],
    )
    step: Step | None = Field(
        None,
        description="else the number of the range, or what the path says (checkpoint-10, global_step_10)",
    )


class Output(Request):
    """The adapter that is wanted."""

    rank: Literal["same", "grow"] = Field(
        "same",
        description="same: the run's own rank, loads in place; grow: rank larger, exact, for restarts only",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Gate(Request):
    """A module below a threshold keeps the last checkpoint."""

    min_energy_ratio: float = Field(
        0.0, ge=0, le=1, description="sigma_1 / sum sigma of the last global delta"
    )
    min_backtest_cosine: float = Field(
        0.0, ge=-1, le=1, description="cosine of the backtest, not asked of averages; -1 turns this gate off"
    )


class Webhook(Request):
    """Whom to tell of the job's end."""

    url: str = Field(
        max_length=2048,
        pattern=r"^https://[^\s/?#@\\]+(?:[/?][^\s#\\]*)?$",
        description="https:// only; asked once for each attempt, redirects are not followed",
    )
    secret: str | None = Field(
        None,
        repr=False,
        description="whsec_ and 24 to 64 random bytes in base64, to sign with; deleted when it has served",
    )

    @field_validator("secret")
    @classmethod
    def _usable(cls, secret: str | None) -> str | None:
        if secret is None:
            return None
        encoded = secret.removeprefix("whsec_")
        try:
            length = len(b64decode(encoded, validate=True))
        except ValueError:
            length = 0
        if encoded == secret or not 24 <= length <= 64:
            raise ValueError("write it as whsec_ and 24 to 64 bytes in base64, as Standard Webhooks do")
        return secret


class _OnTrajectory(Request):
    """What every job works on: a trajectory, by the URIs of its checkpoints or by its series."""

    checkpoints: list[CheckpointRef] | None = Field(None, min_length=1, max_length=MOST_CHECKPOINTS)
    series: str | None = None
    labels: Labels = Field(default_factory=dict)
    webhook: Webhook | None = Field(None, description="told once the job has ended, however it did")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.checkpoints is None) == (self.series is None):
            raise ValueError(
                "give either `checkpoints` (a list of URIs) or `series` (an id), not both and not neither"
            )
        return self


class JobCreate(_OnTrajectory):
    """Extrapolate a trajectory: `checkpoints` or `series`, a method, and how the result should look."""

    task: Literal["extrapolate"] = "extrapolate"
    until: Step | None = Field(None, description="use the checkpoints up to this step only")
    method: Method = Field(default_factory=AutoMethod)
    output: Output = Field(default_factory=Output)
    gate: Gate = Field(default_factory=Gate)


class BacktestCreate(_OnTrajectory):
    """Predict what is known: methods see the checkpoints up to `at`, and are scored `horizon_steps` later."""

    task: Literal["backtest"] = "backtest"
    at: Step = Field(description="the origin: step of the last checkpoint that the methods see")
    horizon_steps: int = Field(50, ge=1, le=100_000, description="training steps to predict ahead of `at`")
    methods: list[Method] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="methods to score, all over the backtest's own horizon; null: all, with their defaults",
    )

    @property
    def until(self) -> int:
        """The step that is to be predicted: the last one that is read."""
        return self.at + self.horizon_steps


class InspectCreate(_OnTrajectory):
    """Show the geometry of a run, and whether it is one where extrapolation should pay."""

    task: Literal["inspect"] = "inspect"
    until: Step | None = Field(None, description="use the checkpoints up to this step only")


def _task(body: object) -> object:
    """Tell which task a body asks for; one that names none asks for an extrapolation."""
    if isinstance(body, dict):
        return body.get("task", "extrapolate")
    return getattr(body, "task", None)


JobRequest = Annotated[
    Annotated[JobCreate, Tag("extrapolate")]
    | Annotated[BacktestCreate, Tag("backtest")]
    | Annotated[InspectCreate, Tag("inspect")],
    Discriminator(_task),
]
"""The body of POST /jobs."""


class JobState(StrEnum):
    """States of a job; a retry is an event, not a state."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True where the job will never change again."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Stage(StrEnum):
    """The seven stages of a running job, in order."""

    RESOLVE = "resolve"
    LOAD = "load"
    EXTRACT = "extract"
    FIT = "fit"
    BACKTEST = "backtest"
    EXTEND = "extend"
    PUBLISH = "publish"


class JobError(Response):
    """Why a job failed, and whose it is to mend."""

    code: str
    detail: str
    blame: Literal["user", "server"]


class Delivery(Response):
    """One attempt to tell a webhook of the job's end."""

    attempt: int
    at: datetime
    status: int | None = Field(None, description="the answer's; null where there was none")
    error: str | None = Field(None, description="why it has to be told again, or will not be")
    next_at: datetime | None = Field(None, description="null where this was the last attempt")


class WebhookState(Response):
    """How far the job's webhook is."""

    url: str
    state: Literal["waiting", "sending", "delivered", "given-up"]
    deliveries: list[Delivery] = Field(description="attempts so far, oldest first")


class Job(Response):
    """A job as the service knows it."""

    id: str
    state: JobState
    stage: Stage | None = None
    progress: float = Field(0.0, ge=0, le=1, description="share of the whole job that is done")
    attempt: int = 0
    queue_position: int | None = Field(
        None, description="0 is next; null unless queued, and where the tenant has as many running as it may"
    )
    task: Literal["extrapolate", "backtest", "inspect"] = "extrapolate"
    steps: list[int] = Field(description="steps of the checkpoints this job uses, ascending")
    series: str | None
    method: Method | None = Field(None, description="of an extrapolation")
    output: Output | None = Field(None, description="of an extrapolation")
    gate: Gate | None = Field(None, description="of an extrapolation")
    labels: Labels
    error: JobError | None = None
    artifacts: dict[str, FileInfo] = Field(default_factory=dict)
    webhook: WebhookState | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class EndedJob(Response):
    """What a webhook says of a job; GET /jobs/{id} says the rest."""

    id: str
    task: Literal["extrapolate", "backtest", "inspect"]
    state: JobState
    labels: Labels
    error: JobError | None


class WebhookMessage(Response):
    """The body of a webhook's POST (Standard Webhooks)."""

    type: Literal["job.succeeded", "job.failed", "job.cancelled"]
    timestamp: datetime = Field(description="when the job ended")
    data: EndedJob


class JobPage(Response):
    """One page of GET /jobs, newest first."""

    items: list[Job]
    next_cursor: str | None


class JobEvent(Response):
    """One entry of a job's event stream; `id` is the SSE id."""

    id: str
    type: Literal[
        "queued", "claimed", "progress", "requeued", "cancelling", "succeeded", "failed", "cancelled"
    ]
    at: datetime
    state: JobState
    stage: Stage | None = None
    progress: float | None = None
    attempt: int | None = None
    message: str | None = None


# Report -------------------------------------------------------------------------------------------


class Scores(Response):
    """A predicted update P against the true one T, over all modules that moved."""

    cosine: float = Field(description="sum <P,T> / sqrt(sum |P|^2 sum |T|^2)")
    relative_error: float = Field(description="sqrt(sum |P-T|^2 / sum |T|^2); no jump scores 1")
    size_ratio: float = Field(description="sqrt(sum |P|^2 / sum |T|^2)")


class BacktestReport(Response):
    """The method, asked at an earlier checkpoint for one that is already known."""

    origin_step: int = Field(description="last checkpoint the method was shown")
    target_step: int = Field(description="checkpoint it was asked for")
    total: Scores = Field(description="of the prediction itself, at alpha 1")
    applied: Scores | None = Field(
        None, description="of the update as it is applied, alpha included; null in older reports"
    )
    seconds: float


class CandidateReport(Response):
    """One way to predict that `auto` tried, and what became of it."""

    label: str
    relative_error: float | None = Field(
        description="over all its backtests, weighted; no jump scores 1; null where nothing was held out"
    )
    share: float = Field(description="of the update, over all modules; all shares sum to 1")


class KindReport(Response):
    """What `auto` took for the modules of one kind."""

    kind: str = Field(description="last part of the modules' names, such as q_proj")
    modules: int = Field(description="how many of them moved")
    relative_error: float | None = Field(description="of what was taken, in the same backtests")
    amplitude: float = Field(description="length of the update over that of the candidates' mean")
    leading: str = Field(description="label of the candidate of the largest share")


class ChoiceReport(Response):
    """Why `auto` predicts what it predicts."""

    why: str = Field(description="in words and numbers")
    backtests: int = Field(description="pairs of an earlier and a later checkpoint that were predicted")
    relative_error: float | None = Field(description="of what was taken, over all backtests, weighted")
    candidates: list[CandidateReport] = Field(description="the best first")
    kinds: list[KindReport]


class ModuleReport(Response):
    """What was measured on one module, and what was done to it."""

    name: str
    shape: tuple[int, int] = Field(description="(out_features, in_features)")
    moved: bool = Field(description="false: the module never trained, and got exactly no update")
    gated: str | None = Field(
        None, description="why the gate kept the last checkpoint; null where it did not"
    )
    energy_ratio: float = Field(description="sigma_1 / sum sigma of the last global delta")
    drift_norm: float = Field(description="Frobenius norm of the last global delta")
    update_norm: float = Field(description="Frobenius norm of alpha times the update")
    reached_norm: float | None = Field(
        None, description="Frobenius norm of the drift with the update on top of it; null in older reports"
    )
    discarded_energy: float = Field(
        description="share of the squared norm that the refit to the wanted rank cut off"
    )
    update_discarded: float = Field(
        0.0,
        description="share of the squared norm of what the method wanted that its low-rank update does not "
        "hold; 0 but for methods that act on the full matrix",
    )
    gauge_condition: float | None = Field(
        None, description="condition number of the refit's gauge; null under grow"
    )
    backtest_cosine: float | None = None


class StageProfile(Response):
    """What one stage took."""

    stage: Stage
    seconds: float


class _JobReport(Response):
    """What every report.json says: which files, what it cost, by what."""

    job: str | None = Field(None, description="id of the job; null in older reports")
    steps: list[int] = Field(description="steps of the checkpoints used, ascending")
    jumps: list[int] = Field(description="steps after which an extrapolated adapter had been swapped in")
    warnings: list[str]
    stages: list[StageProfile]
    peak_memory_bytes: int = Field(description="peak resident memory of the worker's child process")
    device: str
    inputs: dict[str, str] = Field(
        description="sha256 of each checkpoint's adapter_model.safetensors, by step"
    )
    versions: dict[str, str]

    def _repr_html_(self) -> str:
        from nextrapolate.notebook import report_html  # which is about these models

        return report_html(cast("AnyReport", self))


class ModuleScores(Scores):
    """A predicted update against the true one, of one module."""

    name: str


class MethodScores(Response):
    """How one method did in a backtest: the scores of its update as it would be applied, alpha included."""

    method: Method
    total: Scores | None = Field(description="over all modules that moved; null where it could not predict")
    reason: str | None = Field(None, description="why it could not predict, and what it would need")
    warnings: list[str] = Field(default_factory=list)
    seconds: float = Field(description="to fit and to score, without the reading that all methods share")
    modules: list[ModuleScores] = Field(default_factory=list)


class Comparison(_JobReport):
    """A backtest's report.json: each method, asked at `at` for a checkpoint that is known."""

    task: Literal["backtest"] = "backtest"
    verdict: str = Field(description="one sentence: which method did best, and whether any beat no jump")
    at: int = Field(description="the origin: step of the last checkpoint that the methods saw")
    target_step: int = Field(description="step of the checkpoint they were asked for")
    methods: list[MethodScores] = Field(description="the smallest relative error first")


class KindGeometry(Response):
    """Modules of one kind, such as q_proj, over the run."""

    kind: str = Field(description="last part of the modules' names")
    modules: int = Field(description="how many of them moved")
    energy_ratio: list[float] = Field(
        description="sigma_1 / sum sigma of the global delta at each step, in the mean (NExt, Fig. 2)"
    )
    drift_norm: list[float] = Field(description="norm of the global delta at each step, over all of them")
    variance_explained: list[float] = Field(
        description="share of the deltas' squared norm in the leading 1, 2, ... directions in time (RELEX)"
    )


class ModuleLinearity(Response):
    """R^2 of a straight line through one module's weights, in three definitions that disagree."""

    name: str
    held_out_by_coordinate: float | None = Field(
        description="fitted on the earlier two thirds, judged on the rest, each coordinate about its own "
        "mean; null where fewer than two checkpoints are left to judge on"
    )
    held_out_pooled: float | None = Field(description="the same, all coordinates about one mean")
    in_sample: float = Field(
        description="fitted and judged on all checkpoints, each coordinate about its own mean"
    )


class StepGeometry(Response):
    """What one checkpoint added."""

    step: int
    drift_norm: float = Field(description="norm of the drift since the base, over all modules")
    speed: float | None = Field(
        description="norm of the increment since the checkpoint before, per training step; null for the first"
    )
    steadiness: float | None = Field(
        description="cosine between this increment and the one before; null for the first two"
    )


class RunGeometry(Response):
    """How a run's deltas lie, how straight and how steady its way is."""

    still_modules: list[str] = Field(description="modules that never moved")
    track: list[StepGeometry]
    kinds: list[KindGeometry]
    linearity: list[ModuleLinearity]


class Inspection(_JobReport, RunGeometry):
    """An inspection's report.json: the geometry of a run."""

    task: Literal["inspect"] = "inspect"
    verdict: str = Field(description="one sentence: whether extrapolation should pay on this run, and why")
    evidence: BacktestReport | None = Field(
        None, description="the autoregression, asked for the last third; null where there is none"
    )


class Spectrum(Response):
    """Singular values before and after the refit, over the modules that got an update.

    The i-th number stands for the i-th singular value of each: the root of their mean square.
    """

    wanted: list[float] = Field(description="of the last checkpoint with the update on top, descending")
    kept: list[float] = Field(description="of what the adapter holds of it")


class Report(_JobReport):
    """An extrapolation's report.json: what was done, on what evidence, and what it cost."""

    task: Literal["extrapolate"] = "extrapolate"
    verdict: str = Field(description="one sentence: whether the evidence speaks for the jump, and why")
    recommended: bool | None = Field(
        None, description="true where the evidence speaks for the jump; null where there is none"
    )
    method: Method
    target_step: int = Field(description="step the update leads to; of an average, the last checkpoint's")
    output: Output
    gate: Gate
    backtest: BacktestReport | None = Field(
        description="null where the series is too short to hold anything out"
    )
    choice: ChoiceReport | None = Field(None, description="of `auto` alone: what it weighed, and why")
    rivals: list[MethodScores] = Field(
        default_factory=list,
        description="other methods in the same backtest, those that combine checkpoints; without modules",
    )
    geometry: RunGeometry | None = Field(None, description="of the run; null in older reports")
    spectrum: Spectrum | None = Field(None, description="null where no module got an update")
    discarded_energy: float = Field(description="over all modules, as in ModuleReport")
    update_discarded: float = Field(0.0, description="over all modules, as in ModuleReport")
    gated_modules: list[str]
    modules: list[ModuleReport]


AnyReport = Annotated[Report | Comparison | Inspection, Discriminator("task")]
"""The answer of GET /jobs/{id}/report, by the job's task."""


# Errors -------------------------------------------------------------------------------------------


class Problem(Response):
    """RFC 9457 problem+json: what went wrong, whose it is, and what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    blame: Literal["user", "server"]
    request_id: str
    errors: list[dict[str, Any]] = Field(
        default_factory=list, description="one entry for each field that is wrong"
    )


class Readiness(Response):
    """Answer of GET /readyz."""

    ready: bool
    checks: dict[str, str]
