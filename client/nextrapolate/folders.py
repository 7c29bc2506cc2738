"""Finding checkpoints in a folder, and refusing by name what could not be uploaded.

A run's folder holds one folder a checkpoint, named after its training step: `checkpoint-10` (transformers,
TRL, Axolotl, ms-swift), `global_step_10` (verl), `global_step10_hf` (OpenRLHF) or `step_10` (prime-rl,
NeMo-RL). Each holds a PEFT adapter: `adapter_model.safetensors` and `adapter_config.json`.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextrapolate.errors import CheckpointError
from nextrapolate.schemas import ADAPTER_CONFIG, ADAPTER_MODEL, CheckpointFile

_STEP = re.compile(r"(?:checkpoint-|(?:global_)?step_?)([0-9]{1,15})(?:_hf)?")
_PICKLED = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
REFERENCE = "ref"
"""TRL keeps a reference model's adapter in a folder of this name."""
_PLACES = (".", "actor/lora_adapter", "lora_adapters")  # the others are verl 0.7's, and prime-rl's


@dataclass(frozen=True)
class LocalCheckpoint:
    """A PEFT adapter on this machine."""

    step: int
    folder: Path

    @property
    def files(self) -> dict[CheckpointFile, Path]:
        """What is uploaded, in this order: a config alone would stand in the way of the series' jobs."""
        return {
            ADAPTER_MODEL: self.folder / ADAPTER_MODEL,
            ADAPTER_CONFIG: self.folder / ADAPTER_CONFIG,
        }

    def config(self) -> dict[str, Any]:
        """Read the adapter's config.

        Raises:
            CheckpointError: it is no JSON object.
        """
        path = self.folder / ADAPTER_CONFIG
        try:
            config = json.loads(path.read_text())
        except ValueError as error:
            raise CheckpointError(f"{path} is not JSON ({error}); save the checkpoint again") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{path} does not contain a JSON object; save the checkpoint again")
        return config


def find_checkpoints(run: Path, until: int | None = None) -> tuple[LocalCheckpoint, ...]:
    """Find the checkpoints in a run's folder up to step `until`, ascending.

    Every folder named after a step counts: one that cannot be used is an error and never left out in silence.

    Raises:
        CheckpointError: there are fewer than two, or one of them is no PEFT adapter in safetensors.
    """
    if not run.is_dir():
        raise CheckpointError(f"there is no folder {run}")
    folders = [folder for folder in run.iterdir() if folder.is_dir() and named_step(folder.name) is not None]
    if not folders and step_of(run) is not None and _anything_like_an_adapter(run):
        raise CheckpointError(
            f"{run} is a single checkpoint; give the folder that contains all of the run's checkpoints, or "
            "several checkpoint folders"
        )
    if not folders:
        raise CheckpointError(
            f"{run} contains no checkpoints: no folder there is named like checkpoint-10 or global_step_10"
        )
    return read_checkpoints(folders, until)


def steps_in(run: Path) -> set[int]:
    """Read the steps that folders in a run's are named after, whatever is in them."""
    return {
        step for folder in run.iterdir() if folder.is_dir() and (step := named_step(folder.name)) is not None
    }


def read_checkpoints(folders: Iterable[Path], until: int | None = None) -> tuple[LocalCheckpoint, ...]:
    """Read the checkpoints in these folders, one each, up to step `until`, ascending.

    Raises:
        CheckpointError: as in `find_checkpoints`; or a folder's path tells no step, or two tell the same.
    """
    by_step: dict[int, Path] = {}
    for folder in folders:
        step = step_of(folder)
        if step is None:
            raise CheckpointError(_tells_no_step(folder))
        if step in by_step:
            raise CheckpointError(f"{by_step[step]} and {folder} are both step {step}; give only one of them")
        by_step[step] = folder
    chosen = sorted(step for step in by_step if until is None or step <= until)
    if len(chosen) < 2:
        raise CheckpointError(_too_few(by_step, chosen, until))
    return tuple(LocalCheckpoint(step, adapter_folder(by_step[step])) for step in chosen)


def step_of(folder: Path, run: Path | None = None) -> int | None:
    """Read the training step from a path: 10 for run/checkpoint-10 and for run/global_step_10/actor.

    Of a path in `run`, only what comes after `run` is read.
    """
    path = folder.absolute() if run is None else folder.relative_to(run)
    for part in reversed(path.parts):
        if (step := named_step(part)) is not None:
            return step
    return None


def named_step(name: str) -> int | None:
    """Read the training step from the name of one folder; the service reads those in URIs by it, too."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match else None


def _tells_no_step(folder: Path) -> str:
    if not folder.exists():
        return f"there is no folder {folder}"
    if folder.is_dir() and any(named_step(inner.name) is not None for inner in folder.iterdir()):
        return (
            f"{folder} is a run that contains checkpoints: give a single run, or only folders of checkpoints"
        )
    return f"there is no step in the path {folder}: name it like checkpoint-10 or global_step_10"


def _too_few(by_step: dict[int, Path], chosen: list[int], until: int | None) -> str:
    found = f"only {by_step[chosen[0]].name}" if chosen else "no checkpoint"
    limit = f" up to step {until} (there are {sorted(by_step)})" if until is not None else ""
    advice = "save more often" if len(by_step) < 2 else "choose a later step"
    return f"found {found}{limit}; a trajectory needs at least two checkpoints: {advice}"


def _anything_like_an_adapter(checkpoint: Path) -> Path | None:
    """Find where the adapter lies in a checkpoint's folder, whatever its format.

    Raises:
        CheckpointError: there are several.
    """
    for place in _PLACES:
        if _is_like_an_adapter(checkpoint / place):
            return checkpoint / place
    # PEFT gives an adapter whose name is not "default" a folder of that name.
    inner = sorted(checkpoint.iterdir()) if checkpoint.is_dir() else []
    named = [folder for folder in inner if folder.name != REFERENCE and _is_like_an_adapter(folder)]
    if len(named) > 1:
        names = ", ".join(folder.name for folder in named)
        raise CheckpointError(
            f"{checkpoint} holds several adapters, {names}: give the folders of one of them"
        )
    return named[0] if named else None


def _is_like_an_adapter(folder: Path) -> bool:
    return any((folder / name).exists() for name in (ADAPTER_MODEL, ADAPTER_CONFIG, *_PICKLED))


def _of_verl(checkpoint: Path) -> str:
    """What to do with the shards that verl writes."""
    if next(checkpoint.rglob("model_world_size_*_rank_*.pt"), None) is None:
        return ""
    return (
        "; `python -m nextrapolate_trainer.verl_export CHECKPOINTS OUT` takes them out of verl's checkpoints"
    )


def adapter_folder(checkpoint: Path) -> Path:
    """Find the folder inside a checkpoint's that holds the PEFT adapter, both files there.

    Raises:
        CheckpointError: there is none, one of its files is missing, or it is a pickle.
    """
    folder = _anything_like_an_adapter(checkpoint)
    if folder is None:
        raise CheckpointError(
            f"{checkpoint} contains no PEFT adapter: {ADAPTER_MODEL} and {ADAPTER_CONFIG} are needed"
            f"{_of_verl(checkpoint)}"
        )
    if not (folder / ADAPTER_MODEL).is_file():
        pickled = [name for name in _PICKLED if (folder / name).exists()]
        if pickled:
            raise CheckpointError(
                f"{folder / pickled[0]} is a pickle, which can run code and is never uploaded; "
                "load it with peft and save it again with safe_serialization=True"
            )
        raise CheckpointError(f"{folder} has no {ADAPTER_MODEL}; was the run interrupted while saving it?")
    if not (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            f"{folder} has no {ADAPTER_CONFIG}; copy the run's file there: it gives rank and scaling"
        )
    return folder
