"""What every report says of its own making."""

from collections.abc import Iterable
from typing import Any

from nextrapolate_worker.loading import Loaded
from nextrapolate_worker.memory import peak_memory_bytes
from nextrapolate_worker.versions import versions


def provenance(loaded: Loaded, warnings: Iterable[str]) -> dict[str, Any]:
    """Give the fields that all reports share: which files, by what, at what cost, with which warnings."""
    trajectory = loaded.trajectory
    return {
        "job": loaded.job,
        "run": loaded.run,
        "made_at": loaded.started_at,
        "steps": list(trajectory.steps),
        "jumps": list(trajectory.jump_steps),
        "warnings": list(warnings),
        "stages": loaded.profile.stages,
        "peak_memory_bytes": peak_memory_bytes(),
        "device": loaded.device,
        "inputs": {str(step): digest for step, digest in loaded.digests.items()},
        "versions": versions(),
    }
