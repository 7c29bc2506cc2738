"""Settings of a worker, read from the environment once, at its start."""

import os
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict

from nextrapolate_store.environment import read_count, read_text
from nextrapolate_store.settings import StoreSettings


class Computing(BaseModel):
    """How a worker computes: all of its settings on which results may depend.

    Whole it goes to the child, and whole into the key of the stages that one attempt keeps for the next, so
    that a setting which is added here is passed on, and never mixes what was made with and without it.

    Attributes:
        device: torch device of the numerics, a CPU or a GPU of CUDA's; "auto" takes the first GPU where there
            is one.
        threads: CPU threads of the numerics.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    threads: int

    @classmethod
    def from_environment(cls) -> Self:
        """Read NEXTRAPOLATE_DEVICE and NEXTRAPOLATE_THREADS.

        By default the numerics have half of the cores: the matrices are many and small, and threads that spin
        on cores a trainer is using make a job ten times slower, not faster.

        Raises:
            ValueError: one is not what it should be.
        """
        half = max(1, (os.cpu_count() or 1) // 2)
        return cls(
            device=read_text(
                "NEXTRAPOLATE_DEVICE", "auto", r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or cuda:1"
            ),
            threads=read_count("NEXTRAPOLATE_THREADS", half, least=1),
        )


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker runs.

    Attributes:
        store: where jobs and blobs are.
        computing: how it computes.
    """

    store: StoreSettings
    computing: Computing

    @classmethod
    def from_environment(cls) -> Self:
        """Read all of them.

        Raises:
            ValueError: one that is needed is not set, or one is not what it should be.
        """
        return cls(StoreSettings.from_environment(), Computing.from_environment())
