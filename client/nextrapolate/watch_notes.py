"""What a watcher has done, kept in the folder that it watches: one that starts again goes on from there."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from nextrapolate.errors import CheckpointError

NOTES = ".nextrapolate-watch.json"

Stamp = list[tuple[int, int]]
"""Size and time of the last change of a checkpoint's files."""


class Jump(BaseModel):
    """A job that was submitted from a step, and where its adapter is, or why there is none."""

    step: int
    job: str = ""
    """Its id; none where the service refused it."""
    path: Path | None = None
    """None while it is on its way."""
    failure: str | None = None


class Notes(BaseModel):
    """The series, what was posted to it, and the jumps."""

    series: str | None = None
    posted: list[int] = []
    stamps: dict[int, Stamp] = {}
    """Of those that were posted, as they were then."""
    left_behind: dict[int, Stamp] = {}
    """Checkpoints that a run before this one has left in the folder, as they are."""
    jumps: list[Jump] = []

    def begin_anew_at(self, step: int) -> None:
        """Forget the run, whose step another has written anew; what lies beyond that step is its still."""
        self.left_behind = {later: stamp for later, stamp in self.stamps.items() if later > step}
        self.series, self.posted, self.stamps, self.jumps = None, [], {}, []

    def forget_series(self) -> None:
        """Forget a series that the service has lost: all that is here goes into a new one."""
        self.series, self.posted, self.stamps = None, [], {}

    @classmethod
    def read(cls, folder: Path) -> "Notes":
        """Read a folder's notes; there are none yet where nobody has watched it.

        Raises:
            CheckpointError: they cannot be read.
        """
        path = folder / NOTES
        if not path.exists():
            return cls()
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise CheckpointError(f"{path} cannot be read ({reason}); remove it to start again") from error

    def write(self, folder: Path) -> None:
        """Write them, whole or not at all."""
        partial = folder / f"{NOTES}.partial"
        partial.write_text(self.model_dump_json(indent=2) + "\n")
        partial.replace(folder / NOTES)
