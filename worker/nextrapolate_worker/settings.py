"""Settings of a worker, read from the environment once, at its start."""

import os
from dataclasses import dataclass, field, replace
from typing import Self

from nextrapolate_store.environment import read_count, read_text
from nextrapolate_store.settings import StoreSettings


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker computes.

    Attributes:
        store: where jobs and blobs are.
        device: torch device of the numerics, a CPU or a GPU of CUDA's; "auto" takes the first GPU where there
            is one.
        threads: CPU threads of the numerics. Half of the cores by default: the matrices are many and small,
            and threads that spin on cores a trainer is using make a job ten times slower, not faster.
    """

    store: StoreSettings
    device: str = "auto"
    threads: int = field(default_factory=lambda: max(1, (os.cpu_count() or 1) // 2))

    @classmethod
    def from_environment(cls) -> Self:
        """Read NEXTRAPOLATE_DEVICE and NEXTRAPOLATE_THREADS beside the store's settings.

        Raises:
            ValueError: one that is needed is not set, or one is not what it should be.
        """
        device = read_text(
            "NEXTRAPOLATE_DEVICE", cls.device, r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or cuda:1"
        )
        settings = cls(StoreSettings.from_environment(), device)
        return replace(settings, threads=read_count("NEXTRAPOLATE_THREADS", settings.threads, least=1))
