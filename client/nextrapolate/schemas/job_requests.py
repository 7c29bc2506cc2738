"""What may be asked of a trajectory: an extrapolation, a backtest, an inspection."""

from base64 import b64decode
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from nextrapolate.schemas.common import HORIZON_STEPS, MOST_CHECKPOINTS, NewLabels, Request, Step, Steps
from nextrapolate.schemas.methods import AutoMethod, Method


class CheckpointRef(Request):
    """A checkpoint by URI, or several by one URI whose path or revision contains a range: {10..150..10}."""

    uri: str = Field(
        min_length=1,
        max_length=4096,
        description="hf://org/repo@revision/folder, s3://bucket/prefix or file:///folder",
        examples=["hf://org/run@main/checkpoint-{10..150..10}"],
    )
    step: Step | None = Field(
        default=None,
        description="if not given: the number from the range, or the one in the path (checkpoint-10, "
        "global_step_10)",
    )


class Output(Request):
    """What the adapter should look like."""

    rank: Literal["same", "grow"] = Field(
        default="same",
        description="same: the run's own rank, loads in place; grow: a larger rank, exact, for restarts only",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Gate(Request):
    """Thresholds: a module below one of them keeps the weights of the last checkpoint."""

    min_energy_ratio: float = Field(
        default=0.0, ge=0, le=1, description="sigma_1 / sum sigma of the last global delta"
    )
    min_backtest_cosine: float = Field(
        default=0.0,
        ge=-1,
        le=1,
        description="cosine between the module's predicted and true update in the backtest; not applied to "
        "methods that average. -1 turns this gate off",
    )


class Webhook(Request):
    """Where to send a message when the job has ended."""

    url: str = Field(
        max_length=2048,
        pattern=r"^https://[^\s/?#@\\]+(?:[/?][^\s#\\]*)?$",
        description="https:// only; called once per attempt; redirects are not followed",
    )
    secret: str | None = Field(
        default=None,
        repr=False,
        description="whsec_ followed by 24 to 64 random bytes in base64, for signing; deleted when it is no "
        "longer needed",
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
            raise ValueError(
                "write it as whsec_ followed by 24 to 64 bytes in base64, as in Standard Webhooks"
            )
        return secret


class _OnTrajectory(Request):
    """What every job works on: a trajectory, given by the URIs of its checkpoints or by its series."""

    checkpoints: list[CheckpointRef] | None = Field(default=None, min_length=1, max_length=MOST_CHECKPOINTS)
    series: str | None = None
    labels: NewLabels = Field(default_factory=dict)
    webhook: Webhook | None = Field(
        default=None, description="called once the job has ended, whatever the outcome"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.checkpoints is None) == (self.series is None):
            raise ValueError("give exactly one of `checkpoints` (a list of URIs) and `series` (an id)")
        return self


class JobCreate(_OnTrajectory):
    """Extrapolate a trajectory: `checkpoints` or `series`, a method, and how the result should look."""

    task: Literal["extrapolate"] = "extrapolate"
    until: Step | None = Field(default=None, description="use the checkpoints up to this step only")
    method: Method = Field(default_factory=AutoMethod)
    output: Output = Field(default_factory=Output)
    gate: Gate = Field(default_factory=Gate)


class BacktestCreate(_OnTrajectory):
    """Predict a known checkpoint: methods see those up to `at`, and are scored `horizon_steps` later."""

    task: Literal["backtest"] = "backtest"
    at: Step = Field(description="the origin: step of the last checkpoint that the methods see")
    horizon_steps: Steps = Field(default=HORIZON_STEPS, description="training steps to predict beyond `at`")
    methods: list[Method] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="methods to score, all with the backtest's horizon; null: all methods, with their "
        "defaults",
    )

    @property
    def until(self) -> int:
        """The step that is to be predicted: the last one that is read."""
        return self.at + self.horizon_steps


class InspectCreate(_OnTrajectory):
    """Show the geometry of a run, and whether extrapolation is likely to pay off on it."""

    task: Literal["inspect"] = "inspect"
    until: Step | None = Field(default=None, description="use the checkpoints up to this step only")


def _task(body: object) -> object:
    """Tell which task a body asks for; one that names none asks for an extrapolation."""
    if isinstance(body, dict):
        return str(body.get("task", "extrapolate"))  # null is the name of none, too
    return getattr(body, "task", None)


JobRequest = Annotated[
    Annotated[JobCreate, Tag("extrapolate")]
    | Annotated[BacktestCreate, Tag("backtest")]
    | Annotated[InspectCreate, Tag("inspect")],
    Discriminator(_task),
]
"""The body of POST /jobs."""
