"""The shapes of the Qwen2.5 models, all of whose linear layers have LoRA, and synthetic runs in them."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from nextrapolate_numerics import AdapterFiles
from nextrapolate_numerics.extension.writer import ADAPTER_CONFIG, ADAPTER_MODEL


@dataclass(frozen=True)
class Shape:
    """Widths of a model's matrices, its layers, its vocabulary, and how many matrices that has."""

    hidden: int
    intermediate: int
    kv: int
    layers: int
    vocabulary: int
    embeddings: int

    @property
    def linears(self) -> Mapping[str, tuple[int, int]]:
        """(m, n) of the weights of one layer."""
        return {
            "mlp.down_proj": (self.hidden, self.intermediate),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "self_attn.k_proj": (self.kv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.v_proj": (self.kv, self.hidden),
        }

    def modules(self, layers: int) -> dict[str, tuple[int, int]]:
        """(m, n) by module, of so many layers."""
        return {
            f"model.layers.{layer}.{name}": shape
            for layer in range(layers)
            for name, shape in self.linears.items()
        }

    def checkpoint_bytes(self, rank: int) -> int:
        """Of all layers' factors, float32."""
        return 4 * rank * self.layers * sum(m + n for m, n in self.linears.values())


MODELS = {
    "tiny": Shape(128, 384, 64, 4, 32, 1),
    "0.5b": Shape(896, 4864, 128, 24, 151_936, 1),
    "1.5b": Shape(1536, 8960, 256, 28, 151_936, 1),
    "3b": Shape(2048, 11_008, 256, 36, 151_936, 1),
    "7b": Shape(3584, 18_944, 512, 28, 152_064, 2),
    "14b": Shape(5120, 13_824, 1024, 48, 152_064, 2),
}


def adapter_files(folder: Path, step: int) -> AdapterFiles:
    """Name a checkpoint's files as the numerics read them."""
    return AdapterFiles(step, folder / ADAPTER_MODEL, folder / ADAPTER_CONFIG)


def checkpoints_of(run: Path) -> list[AdapterFiles]:
    """The checkpoint-N folders of a run, steps ascending."""
    found = [adapter_files(folder, int(folder.name[11:])) for folder in run.glob("checkpoint-*")]
    return sorted(found, key=lambda files: files.step)


def write_series(
    folder: Path, modules: Mapping[str, tuple[int, int]], *, rank: int, checkpoints: int, step: float
) -> list[AdapterFiles]:
    """Write a run of these modules (m, n), checkpoints ten steps apart, as checkpoint-N folders in `folder`.

    B and A go steadily one way, with noise half as large as what they go; `step` is their change from one
    checkpoint to the next over what they have in the end: 1 / checkpoints is a run from its start, 1e-3 a
    slow one that has been going on for long. Singular values fall about as 1 / k.
    """

    def write(index: int) -> AdapterFiles:
        progress = 1 - (checkpoints - 1 - index) * step
        tensors: dict[str, Tensor] = {}
        for seed, (name, (m, n)) in enumerate(modules.items()):
            generator = torch.Generator().manual_seed(seed)
            start = torch.randn(rank, n, generator=generator) / n**0.5
            ways = _falling(m, rank, generator).mT, 0.3 * _falling(n, rank, generator)
            generator.manual_seed((index + 1) * 1_000_000 + seed)
            noises = _falling(m, rank, generator).mT, 0.3 * _falling(n, rank, generator)
            B, A = (progress * way + 0.5 * step * noise for way, noise in zip(ways, noises, strict=True))
            tensors[f"base_model.model.{name}.lora_B.weight"] = B.contiguous()
            tensors[f"base_model.model.{name}.lora_A.weight"] = start + A
        return _write_checkpoint(folder, 10 * (index + 1), tensors, rank)

    with ThreadPoolExecutor(torch.get_num_threads()) as writers:
        return list(writers.map(write, range(checkpoints)))


def _falling(length: int, rank: int, generator: torch.Generator) -> Tensor:
    """(rank, length) random rows of about norm 1 / k."""
    norms = 1.0 / torch.arange(1, rank + 1).unsqueeze(1)
    rows: Tensor = torch.randn(rank, length, generator=generator) * norms / length**0.5
    return rows


def _write_checkpoint(run: Path, step: int, tensors: dict[str, Tensor], rank: int) -> AdapterFiles:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    files = adapter_files(folder, step)
    save_file(tensors, files.model, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "synthetic",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "init_lora_weights": True,
    }
    files.config.write_text(json.dumps(config), encoding="utf-8")
    return files
