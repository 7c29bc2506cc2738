"""What a run has to know about itself when it is resumed, as a file of its own in each of its checkpoints."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from nextrapolate.jumped import RUN_STATE, RunNote
from nextrapolate_trainer.errors import StateError


class RunState(RunNote):
    """That note, as the trainer writes it and reads it again."""

    def write(self, checkpoint: Path) -> None:
        """Write the state into a checkpoint's folder, at once or not at all."""
        partial = checkpoint / f".{RUN_STATE}.partial"
        try:
            partial.write_text(self.model_dump_json(indent=2) + "\n")
            partial.replace(checkpoint / RUN_STATE)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def read(cls, checkpoint: Path) -> "RunState":
        """Read the state of a checkpoint.

        Raises:
            StateError: it has none, or one that cannot be read.
        """
        try:
            return cls.model_validate_json((checkpoint / RUN_STATE).read_bytes())
        except (OSError, ValidationError) as error:
            reason = error if isinstance(error, OSError) else error.errors(include_url=False)[0]["msg"]
            raise StateError(f"{checkpoint} contains no readable {RUN_STATE} ({reason})") from error

    @classmethod
    def find(cls, checkpoints: Iterable[Path], step: int, adapter: str) -> "RunState":
        """Read the state of a run that goes on after `step` with this adapter, from one of these folders.

        Raises:
            StateError: none of them holds it; says of each why.
        """
        reasons = []
        for checkpoint in checkpoints:
            try:
                state = cls.read(checkpoint)
                state._check(checkpoint, step, adapter)
            except StateError as error:
                reasons.append(str(error))
                continue
            return state
        raise StateError("; ".join(reasons))

    def _check(self, checkpoint: Path, step: int, adapter: str) -> None:
        if self.step != step:
            raise StateError(f"the state in {checkpoint} is of step {self.step}, not {step}")
        if self.adapter not in (None, adapter):
            raise StateError(
                f"{checkpoint} was saved with a different adapter from the one that the run continues with"
            )
