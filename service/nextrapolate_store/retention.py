"""How long what nobody needs any more is kept."""

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Self

from nextrapolate_store.environment import read_number


@dataclass(frozen=True)
class Retention:
    """Ages at which the sweeper removes things, and how often it looks.

    Attributes:
        jobs: a job with its results and records, since its end.
        events: a job's events, since its end.
        idempotency_keys: which job a key has made, since the key was used first.
        uploads: a file, whole or in part, that belongs to no series and no job, since it was last written to.
        sweep_every: pause between two sweeps, over all processes together.
    """

    jobs: timedelta = timedelta(days=30)
    events: timedelta = timedelta(days=7)
    idempotency_keys: timedelta = timedelta(hours=24)
    uploads: timedelta = timedelta(hours=24)
    sweep_every: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= timedelta():
                raise ValueError(f"{field.name} must be a positive time, not {getattr(self, field.name)}")

    @classmethod
    def from_environment(cls) -> Self:
        """Read NEXTRAPOLATE_KEEP_JOBS_DAYS, _KEEP_EVENTS_DAYS and _SWEEP_MINUTES.

        Raises:
            ValueError: one of them is not what it should be.
        """
        days, minutes = timedelta(days=1), timedelta(minutes=1)
        return cls(
            jobs=_read("NEXTRAPOLATE_KEEP_JOBS_DAYS", cls.jobs, days),
            events=_read("NEXTRAPOLATE_KEEP_EVENTS_DAYS", cls.events, days),
            sweep_every=_read("NEXTRAPOLATE_SWEEP_MINUTES", cls.sweep_every, minutes),
        )


def _read(variable: str, default: timedelta, unit: timedelta) -> timedelta:
    return read_number(variable, default / unit) * unit


def milliseconds(span: timedelta) -> int:
    """Give a span of time as Redis' scripts take it."""
    return span // timedelta(milliseconds=1)
