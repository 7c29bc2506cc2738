"""PEFT adapters out of a verl run's checkpoints, to extrapolate between two runs.

    python -m nextrapolate_trainer.verl_export checkpoints/project/experiment adapters
    nextrapolate extrapolate adapters --until 100 --horizon-steps 50 --out adapters/extrapolated-150

verl saves the part of the model that each process holds, and of the adapter's configuration rank and alpha
alone. Here the adapter is put together in the dtype that it was trained in; verl's own merger rounds it.

A run that began from an adapter (lora_adapter_path) has its configuration: give that adapter's, by
--adapter-config. Without it one such as verl makes itself is written; with use_rslora or an alpha_pattern the
run trained another model than that.

What the plugin noted in a checkpoint goes beside its adapter: the client refuses a run that has jumped.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any

import torch
import typer
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from nextrapolate.jumped import RUN_STATE
from nextrapolate.schemas import ADAPTER_CONFIG, ADAPTER_MODEL
from nextrapolate_trainer.errors import ExportError, TrainerPluginError

logger = logging.getLogger("nextrapolate")

_STEP = re.compile(r"global_step_(\d+)")
_PREFIX, _BASE = "base_model.model.", ".base_layer"
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])\.[^.]+\.weight")
_TRAINED = re.compile(r"\.(lora_\w+|modules_to_save)\.")

_ASSUMED = (
    "the adapters are exported as if the run had started from no adapter: verl saves neither use_rslora "
    "nor alpha_pattern, and with either of them the run trained a different model from this; if it "
    "started from an adapter (actor_rollout_ref.model.lora_adapter_path), export into another folder, "
    "with that adapter's adapter_config.json (--adapter-config)"
)


def export(checkpoints: Path, out: Path, adapter_config: Path | None = None) -> list[Path]:
    """Write the adapter of each checkpoint `global_step_<n>` into a folder of the same name in `out`.

    Folders that are there already are left alone: an export can follow a run. Returns the new ones.

    Args:
        checkpoints: the run's trainer.default_local_dir.
        out: folder for the adapters.
        adapter_config: adapter_config.json of the adapter that the run began from, if it began from one:
            verl does not save whether use_rslora is on, or that modules have ranks or alphas of their own.

    Raises:
        ExportError: there is no checkpoint, or one has no adapter that can be taken out.
    """
    if adapter_config is not None and not adapter_config.is_file():
        raise ExportError(f"there is no file {adapter_config}: give the adapter_config.json itself")
    try:
        names = list(checkpoints.iterdir())
    except OSError as error:
        raise ExportError(
            f"{checkpoints} cannot be read ({error.strerror}): give the run's trainer.default_local_dir"
        ) from error
    found = {int(match[1]): path for path in names if (match := _STEP.fullmatch(path.name))}
    if not found:
        raise ExportError(
            f"{checkpoints} contains no global_step_<n>: give the run's trainer.default_local_dir"
        )
    missing = [found[step] for step in sorted(found) if not (out / found[step].name).exists()]
    if missing and adapter_config is None:
        logger.warning("%s", _ASSUMED)
    return [
        _export_one(checkpoint / "actor", out / checkpoint.name, adapter_config) for checkpoint in missing
    ]


def _export_one(actor: Path, target: Path, adapter_config: Path | None) -> Path:
    parts = _parts(actor)
    factors = {name: match for name in parts[0] if (match := _FACTOR.fullmatch(name))}
    if not factors:
        raise ExportError(f"{actor} contains no LoRA adapter: was actor_rollout_ref.model.lora_rank set?")
    if others := [name for name in parts[0] if _TRAINED.search(name) and name not in factors]:
        raise ExportError(f"{actor} contains {others[0]}: only LoRA's factors A and B can be exported")
    adapter = {
        f"{match['module']}.lora_{match['factor']}.weight": _whole([part[name] for part in parts])
        for name, match in factors.items()
    }
    partial = target.with_name(f".{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    save_file(adapter, partial / ADAPTER_MODEL)
    if adapter_config is None:
        _config(actor, adapter, _target_modules(parts[0])).save_pretrained(str(partial))
    else:
        shutil.copyfile(adapter_config, partial / ADAPTER_CONFIG)
    with suppress(FileNotFoundError):  # a run without the plugin has none
        shutil.copyfile(actor.parent / RUN_STATE, partial / RUN_STATE)
    return partial.rename(target)


def _parts(actor: Path) -> list[dict[str, Tensor]]:
    """Return what each process saved, by rank; the files stay where they are until a tensor is used."""
    try:
        world_size = json.loads((actor / "fsdp_config.json").read_text())["world_size"]
        files = [actor / f"model_world_size_{world_size}_rank_{rank}.pt" for rank in range(world_size)]
        return [torch.load(file, map_location="cpu", mmap=True, weights_only=True) for file in files]
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, UnpicklingError) as error:
        raise ExportError(
            f"{actor} is not a complete FSDP checkpoint ({error}): wait until the run has saved it; if "
            "each node has its own disk, bring all of their files together first"
        ) from error


def _whole(parts: list[Tensor]) -> Tensor:
    """Return the tensor of which each process has a part; replicas of the same part count once."""
    first = parts[0]
    if not isinstance(first, DTensor):
        return first.contiguous()
    sharded = first.placements[-1]
    if not isinstance(sharded, Shard):
        return first.to_local().contiguous()
    one_of_each = first.device_mesh.mesh.reshape(-1, first.device_mesh.mesh.shape[-1])[0]
    local = [part.to_local() for rank in one_of_each.tolist() if isinstance(part := parts[rank], DTensor)]
    whole = torch.cat(local, dim=sharded.dim)
    if whole.shape != first.shape:
        raise ExportError(f"its parts make up {tuple(whole.shape)}, not {tuple(first.shape)}")
    return whole.contiguous()


def _config(actor: Path, adapter: dict[str, Tensor], target_modules: list[str]) -> LoraConfig:
    meta = _trained_with(actor)
    for name, tensor in adapter.items():
        if ".lora_A." in name and tensor.shape[0] != meta["r"]:
            raise ExportError(
                f"{name} has rank {tensor.shape[0]}, the run {meta['r']}: verl does not save the ranks and "
                "alphas of single modules, so give the adapter_config.json that the run started from"
            )
    return LoraConfig(**meta, target_modules=target_modules, inference_mode=True)


def _trained_with(actor: Path) -> dict[str, Any]:
    """Return what verl saves of the adapter's configuration."""
    try:
        meta = json.loads((actor / "lora_train_meta.json").read_text())
        return {key: meta[key] for key in ("r", "lora_alpha", "task_type")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{actor} does not say with which rank and alpha it was trained ({error!r}): wait until the "
            "run has saved it; if this version of verl saves no lora_train_meta.json, give an "
            "adapter_config.json"
        ) from error


def _target_modules(names: Iterable[str]) -> list[str]:
    """Return the adapted modules: by their last name, where all that share it are known to be adapted."""
    modules = {name.removeprefix(_PREFIX).removesuffix(".weight") for name in names if ".lora_" not in name}
    untouched = {module for module in modules if not module.endswith(_BASE)}
    adapted = {match["module"].removeprefix(_PREFIX) for name in names if (match := _FACTOR.fullmatch(name))}
    short = {_last(module) for module in adapted}
    # save_lora_only leaves out the others, and with them what they are called.
    shared = not untouched or short & {_last(module) for module in untouched}
    return sorted(adapted if shared else short)


def _last(module: str) -> str:
    return module.rpartition(".")[2]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def command(
    checkpoints: Annotated[Path, typer.Argument(metavar="CHECKPOINTS", help="trainer.default_local_dir")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder for the adapters")],
    adapter_config: Annotated[
        Path | None,
        typer.Option(help="adapter_config.json of the adapter that the run started from, if there was one"),
    ] = None,
) -> None:
    """Write the adapters of a verl run's checkpoints as PEFT saves them."""
    try:
        for folder in export(checkpoints, out, adapter_config):
            typer.echo(folder)
    except TrainerPluginError as error:
        typer.echo(error, err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        typer.echo(f"{error.filename or out} cannot be written ({error.strerror})", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app()
