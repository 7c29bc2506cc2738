"""Stages 1 and 2, the same for every task: from the sources of a job to a trajectory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nextrapolate.schemas import Stage
from nextrapolate_numerics import AdapterFiles, Trajectory
from nextrapolate_store.blobs import BlobStore
from nextrapolate_store.errors import BlobNotFound
from nextrapolate_store.records import InputAdapter
from nextrapolate_worker.errors import CheckpointGone, NoSuchDevice
from nextrapolate_worker.files import digest
from nextrapolate_worker.kept import KeptStages
from nextrapolate_worker.messages import Start
from nextrapolate_worker.profile import Profile
from nextrapolate_worker.versions import versions


@dataclass(frozen=True)
class Loaded:
    """A trajectory, and where and on what a task works.

    Attributes:
        job: its id.
        trajectory: opened; its weights are not read yet.
        digests: sha256 of each checkpoint's weights, by step.
        device: where the maths is done.
        folder: empty, for the artifacts.
        profile: told of every stage.
        kept: what earlier attempts at the job have made.
    """

    job: str
    trajectory: Trajectory
    digests: Mapping[int, str]
    device: str
    folder: Path
    profile: Profile
    kept: KeptStages


@dataclass(frozen=True)
class _Resolved:
    """The job's files on this machine's disk."""

    checkpoints: tuple[AdapterFiles, ...]
    jumps: tuple[AdapterFiles, ...]
    digests: Mapping[int, str]


def load(work: Start, profile: Profile) -> Loaded:
    """Find the job's files, and open them as one trajectory.

    Raises:
        NumericsError: the checkpoints cannot be used; says which and why.
        WorkerError: a file has gone, or the device is not there.
    """
    device = _device(work)
    with profile.stage(Stage.RESOLVE):
        files = _resolve(work)
    with profile.stage(Stage.LOAD):
        trajectory = Trajectory.open(files.checkpoints, files.jumps)
    kept = _kept(work, files, trajectory, torch.device(device))
    return Loaded(work.job, trajectory, files.digests, device, work.folder, profile, kept)


def _kept(work: Start, files: _Resolved, trajectory: Trajectory, device: torch.device) -> KeptStages:
    weights = [files.digests[checkpoint.step] for checkpoint in files.checkpoints]
    weights += [digest(jump.model) for jump in files.jumps]
    depends_on = {
        "request": work.request.model_dump(mode="json"),
        "weights": weights,
        "configs": [digest(adapter.config) for adapter in (*files.checkpoints, *files.jumps)],
        "device": device.type,
        "threads": work.threads,
        "versions": versions(),
    }
    given = {Trajectory: trajectory, torch.device: device}
    return KeptStages(work.folder.parent / "stages", depends_on, given)


def _device(work: Start) -> str:
    torch.set_num_threads(work.threads)
    if work.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if work.device.startswith("cuda") and not torch.cuda.is_available():
        raise NoSuchDevice(
            f"NEXTRAPOLATE_DEVICE is {work.device}, but torch sees no GPU: set it to auto, or mend the driver"
        )
    return work.device


def _resolve(work: Start) -> _Resolved:
    blobs = BlobStore(work.data_dir)

    def files(adapter: InputAdapter) -> AdapterFiles:
        try:
            model = blobs.path(adapter.model, work.tenant)
            config = blobs.path(adapter.config, work.tenant)
        except BlobNotFound as error:
            raise CheckpointGone(f"checkpoint {adapter.step}: {error}") from None
        for path in (model, config):
            if not path.is_file():
                raise CheckpointGone(
                    f"checkpoint {adapter.step}: {path.name} was there at submit and is gone now: submit "
                    "without it, or upload the checkpoints to a series, which keeps them"
                )
        return AdapterFiles(adapter.step, model, config)

    checkpoints = tuple(files(adapter) for adapter in work.inputs.checkpoints)
    return _Resolved(
        checkpoints=checkpoints,
        jumps=tuple(files(adapter) for adapter in work.inputs.jumps),
        digests={checkpoint.step: digest(checkpoint.model) for checkpoint in checkpoints},
    )
