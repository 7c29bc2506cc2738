"""An adapter on disk, as PeftModel.from_pretrained and vLLM read it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from nextrapolate_numerics.lowrank import LowRank
from nextrapolate_numerics.series import LoraConfig, Trajectory

ADAPTER_MODEL = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def write_adapter(folder: Path, trajectory: Trajectory, factors: Mapping[str, LowRank]) -> tuple[Path, Path]:
    """Write factors by module under the tensor names of the last checkpoint, all else as it has it.

    Returns:
        The paths of adapter_model.safetensors and adapter_config.json.

    Raises:
        NonFiniteWeightsError: NaN or Inf in a tensor of the last checkpoint that is no factor.
    """
    last = trajectory.layouts[trajectory.last]
    tensors: dict[str, Tensor] = last.other_tensors()
    for key, tensor in tensors.items():
        widened = tensor.float() if tensor.itemsize == 1 else tensor  # torch cannot tell of float8
        if not widened.isfinite().all():
            raise trajectory.not_finite(key, trajectory.last)
    for name, keys in last.modules.items():
        tensors[keys.B] = factors[name].B.contiguous()
        tensors[keys.A] = factors[name].A.contiguous()
    model, config = folder / ADAPTER_MODEL, folder / ADAPTER_CONFIG
    save_file(tensors, model, metadata={"format": "pt"})
    ranks = {name: low_rank.rank for name, low_rank in factors.items()}
    fields = config_fields(trajectory.config, ranks)
    # Their own order is kept within patterns: PEFT takes the first one that matches.
    config.write_text(json.dumps(dict(sorted(fields.items())), indent=2) + "\n", encoding="utf-8")
    return model, config


def config_fields(config: LoraConfig, ranks: Mapping[str, int]) -> dict[str, Any]:
    """The run's config, brought to the ranks given by module; each module's scaling stays what it was.

    A run without patterns gets another r and lora_alpha, one with patterns has each module named in both: the
    longest first, since a name is also a pattern for those that end in it.
    """
    fields = dict(config.fields)
    if all(rank == config.rank(name) for name, rank in ranks.items()):
        return fields
    alphas = {name: _alpha(config, name, rank) for name, rank in ranks.items()}
    name, rank = max(ranks.items(), key=lambda item: item[1])
    fields |= {"r": rank, "lora_alpha": alphas[name]}
    if fields.get("init_lora_weights") == "orthogonal":  # PEFT draws so at even ranks alone, even to load
        fields["init_lora_weights"] = True
    if config.rank_pattern or config.alpha_pattern:
        names = sorted(ranks, key=len, reverse=True)
        fields |= {
            "rank_pattern": {name: ranks[name] for name in names},
            "alpha_pattern": {name: alphas[name] for name in names},
        }
    return fields


def _alpha(config: LoraConfig, module: str, rank: int) -> float:
    """The lora_alpha that gives the module its scaling at another rank, as an int where it is one."""
    alpha = config.scaling(module) * (math.sqrt(rank) if config.use_rslora else rank)
    return round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-12) else alpha
