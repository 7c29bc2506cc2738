"""What requests and responses of every kind share."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

AS_KEPT = {"as_kept": True}
"""Validation context for requests that were accepted before: bounds that came later do not hold for them."""

STEPS_END = 2**53
"""Steps are below: from there on, not every JSON reader tells one integer from the next."""
MAX_LABELS = 32
"""How many labels a request may bring: searches read all of them."""


def _check_step(step: int, info: ValidationInfo) -> int:
    if step >= STEPS_END and not info.context:
        raise ValueError(f"a step must be less than {STEPS_END}")
    return step


def _check_labels(labels: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    if len(labels) > MAX_LABELS and not info.context:
        raise ValueError(f"at most {MAX_LABELS} labels are allowed, got {len(labels)}")
    return labels


Step = Annotated[
    int,
    Field(
        ge=0,
        description="training step of the optimizer, never the index of a saved checkpoint",
        json_schema_extra={"exclusiveMaximum": STEPS_END},
    ),
    AfterValidator(_check_step),
]
MAX_STEPS = 100_000
"""How far a horizon or a window may reach."""
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
"""A number of training steps: the length of a horizon, or of a window."""
HORIZON_STEPS = 50
"""The horizon of every method where nobody names one."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="sha256 in hex")]
Labels = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=256)]]
NewLabels = Annotated[
    Labels, Field(json_schema_extra={"maxProperties": MAX_LABELS}), AfterValidator(_check_labels)
]
"""Labels of a request."""
MOST_CHECKPOINTS = 1024
"""How many checkpoints one job may have."""

Task = Literal["extrapolate", "backtest", "inspect"]
"""What a job may be asked to do."""

ADAPTER_MODEL: Final = "adapter_model.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"
MODEL_CARD = "README.md"
REPORT = "report.json"
REPORT_PAGE = "report.html"
CheckpointFile = Literal["adapter_model.safetensors", "adapter_config.json"]


class Request(BaseModel):
    """Base of what callers send: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Response(BaseModel):
    """Base of what the service answers: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FileInfo(Response):
    """One stored file."""

    bytes: int
    sha256: str
