"""What a run has to know about itself when it is resumed, as a file of its own in each of its checkpoints."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from nextrapolate.jumped import RUN_STATE
from nextrapolate_trainer.errors import StateError


class JumpMade(BaseModel):
    """A jump that the run has made."""

    model_config = ConfigDict(frozen=True)

    step: int
    job: str
    fallback: str
    """sha256 of the run's own adapter before the jump, a file of the series' checkpoint of this step."""


class RunState(BaseModel):
    """The run as it was after training step `step`, which is also its place in the schedule."""

    model_config = ConfigDict(frozen=True)

    step: int
    series: str | None
    """Where its checkpoints are; None where none has arrived yet."""
    jumps: tuple[JumpMade, ...] = ()

    def write(self, checkpoint: Path) -> None:
        """Write the state into a checkpoint's folder, at once or not at all."""
        partial = checkpoint / f".{RUN_STATE}.partial"
        partial.write_text(self.model_dump_json(indent=2) + "\n")
        partial.replace(checkpoint / RUN_STATE)

    @classmethod
    def read(cls, checkpoint: Path) -> "RunState":
        """Read the state of a checkpoint.

        Raises:
            StateError: it has none, or one that cannot be read.
        """
        try:
            return cls.model_validate_json((checkpoint / RUN_STATE).read_bytes())
        except (OSError, ValidationError) as error:
            raise StateError(f"{checkpoint} holds no {RUN_STATE} that can be read ({error})") from error
