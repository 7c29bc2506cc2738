"""What requests and responses of every kind share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Step = Annotated[
    int, Field(ge=0, description="training step of the optimizer, never the index of a saved checkpoint")
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="sha256 in hex")]
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


class FileInfo(Response):
    """One stored file."""

    bytes: int
    sha256: str
