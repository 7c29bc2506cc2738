"""One pass over the files: from factors to what a method learns from."""

from collections.abc import Iterator, Sequence

import torch

from nextrapolate_numerics.errors import NothingMovedError
from nextrapolate_numerics.extraction.extraction import Evidence, Extraction
from nextrapolate_numerics.extraction.groups import at_once, moving, planned
from nextrapolate_numerics.extraction.look import Found, Look
from nextrapolate_numerics.extraction.sending import sent
from nextrapolate_numerics.extraction.tiles import TiledGroup
from nextrapolate_numerics.parallel import in_threads
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Trajectory


def gather(
    trajectory: Trajectory,
    evidence: Evidence,
    horizon_steps: int,
    *,
    device: str | torch.device = "cpu",
    on_progress: Progress = silent,
) -> Extraction:
    """Read every module once, and keep the evidence that is wanted: what one or many methods learn from.

    Raises:
        NonFiniteWeightsError: NaN or Inf in a factor.
        NothingMovedError: no module ever changed.
    """
    device = torch.device(device)
    look = Look.of(trajectory, evidence, horizon_steps, device)
    plan = planned(trajectory, look.windows.most_held, device)
    found: dict[str, Found] = {}
    for done, of_group in enumerate(_groups(look, plan, device), start=1):
        found |= of_group
        on_progress(done / len(plan))
    if not found:
        raise NothingMovedError
    # in the order of the modules, which is not that of a GPU's groups
    found = {name: found[name] for name in trajectory.module_names if name in found}
    still = dict.fromkeys(trajectory.module_names, 0.0)
    return Extraction(
        trajectory=trajectory,
        drift=trajectory.drift,
        horizon_steps=horizon_steps,
        pairs=look.pairs,
        moved=frozenset(found),
        energy_ratios=still | {name: each.energy_ratio for name, each in found.items()},
        drift_norms=still | {name: each.norm for name, each in found.items()},
        grams={name: each.gram for name, each in found.items() if each.gram is not None},
        triples={name: each.triples for name, each in found.items() if each.triples is not None},
        parts={name: each.parts for name, each in found.items() if each.parts is not None},
        geometry={name: each.geometry for name, each in found.items() if each.geometry is not None},
        device=device,
    )


def _groups(look: Look, plan: Sequence[list[str]], device: torch.device) -> Iterator[dict[str, Found]]:
    """What each group tells: on a CPU of several at a time, on a GPU of one after the other."""
    if device.type == "cuda":
        return map(look.at, sent(look.trajectory, plan, device))

    def looked_at(names: list[str]) -> dict[str, Found]:
        moved = moving(look.trajectory, names)
        return look.at(TiledGroup.of((name, look.trajectory.stored(name)) for name in moved))

    return in_threads(looked_at, plan, at_once(look.trajectory, look.windows.most_held))
