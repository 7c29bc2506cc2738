"""Stages 1 and 2, the same for every task: from the sources of a job to a trajectory."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from nextrapolate.schemas import Stage
from nextrapolate_numerics import Cost, Trajectory
from nextrapolate_worker.devices import find_device
from nextrapolate_worker.kept import KeptStages
from nextrapolate_worker.messages import Start
from nextrapolate_worker.profile import Profile
from nextrapolate_worker.resolving import Resolved, resolve
from nextrapolate_worker.versions import versions


@dataclass(frozen=True)
class Loaded:
    """A trajectory, and where and on what a task works.

    Attributes:
        job: its id.
        run: its name; empty where it has none.
        started_at: when the job was first claimed.
        trajectory: opened; its weights are not read yet.
        digests: sha256 of each checkpoint's weights, by step.
        device: where the maths is done.
        folder: empty, for the artifacts.
        profile: told of every stage.
        kept: what earlier attempts at the job have made.
    """

    job: str
    run: str
    started_at: datetime | None
    trajectory: Trajectory
    digests: Mapping[int, str]
    device: str
    folder: Path
    profile: Profile
    kept: KeptStages


def load(work: Start, profile: Profile) -> Loaded:
    """Find the job's files, and open them as one trajectory.

    Raises:
        NumericsError: the checkpoints cannot be used; says which and why.
        WorkerError: a file has gone, or the device is not there.
    """
    torch.set_num_threads(work.computing.threads)
    device = find_device(work.computing.device)
    with profile.stage(Stage.RESOLVE) as progress:
        files = resolve(work, progress)
        hashed = sum(checkpoint.model.stat().st_size for checkpoint in files.checkpoints)
        profile.count(Stage.RESOLVE, Cost(bytes_read=hashed, flops=0))
    with profile.stage(Stage.LOAD):
        trajectory = Trajectory.open(files.checkpoints, files.jumps)
    kept = _kept(work, files, trajectory, torch.device(device))
    return Loaded(
        job=work.job,
        run=work.request.labels.get("run") or work.inputs.series_name,
        started_at=work.started_at,
        trajectory=trajectory,
        digests=files.digests,
        device=device,
        folder=work.folder,
        profile=profile,
        kept=kept,
    )


def _kept(work: Start, files: Resolved, trajectory: Trajectory, device: torch.device) -> KeptStages:
    weights = [files.digests[checkpoint.step] for checkpoint in files.checkpoints]
    weights += files.jump_digests
    depends_on = {
        "request": work.request.model_dump(mode="json"),
        "weights": weights,
        "configs": list(files.config_digests),
        # All of it, but for what the device is called: "auto" may be any, and one GPU computes like the next.
        "computing": work.computing.model_dump(mode="json") | {"device": device.type},
        "versions": versions(),
    }
    given = {Trajectory: trajectory, torch.device: device}
    return KeptStages(work.stages, work.folder, depends_on, given)
