"""What both trainers are told about jumps: one set of names, defaults and bounds for TRL and verl."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nextrapolate.invalid_requests import lines
from nextrapolate.schemas import Gate

OptimizerState = Literal["keep", "reset"]
"""What becomes of Adam's moments at a jump: kept where they fit the new factors, or cleared everywhere."""


class JumpSettings(BaseModel):
    """When a run jumps, and what it takes of a jump."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    jump_at: int | None = 150
    """Training steps after which the run jumps; None is for a run that makes no jump but its last one."""
    jump_every: int | None = None
    """Steps between further jumps; None jumps once."""
    optimizer: OptimizerState = "keep"
    """Of which modules the optimizer's state stays: "keep", of every one that came back in the run's own
    gauge; "reset", of no module with LoRA factors."""
    gate: Gate = Gate()
    """Thresholds below which a module keeps the run's own adapter."""
    name: str | None = None
    """Of the series; None is the trainer's name of the run."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds that a jump may wait for the service, from the last upload to the last download."""
    max_update_ratio: float = Field(default=5.0, gt=0)
    """An update longer than this share of the drift since training began is refused."""
    only_if_recommended: bool = False
    """A jump is made only where its report recommends it."""

    @classmethod
    def checked(cls, given: object, *group: str) -> Self:
        """Make settings of a mapping; messages name them as settings of `group`.

        Raises:
            ValueError: a setting is not known, or its value is of no use; names all of these.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ValueError("; ".join(lines(error, *group))) from None
