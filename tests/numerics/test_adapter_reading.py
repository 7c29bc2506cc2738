"""What a safetensors header gives away, and what is refused for it."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from fixtures.adapters import write_adapter
from fixtures.dense import adapter_files

from nextrapolate_numerics import BrokenAdapterError, UnsupportedAdapterError
from nextrapolate_numerics.series import LoraConfig
from nextrapolate_numerics.series.adapter import AdapterLayout

NAME = "base_model.model.model.layers.0.mlp.up_proj"
FACTORS = {f"{NAME}.lora_B.weight": torch.ones(6, 4), f"{NAME}.lora_A.weight": torch.ones(4, 5)}


def layout(folder: Path) -> AdapterLayout:
    files = adapter_files(folder, 10)
    return AdapterLayout.read(files.model, LoraConfig.read(files.config))


def test_modules_shapes_and_other_tensors(tmp_path: Path) -> None:
    head = {"base_model.model.lm_head.weight": torch.arange(6.0)}
    read = layout(write_adapter(tmp_path / "a", FACTORS | head))
    keys = read.modules["model.layers.0.mlp.up_proj"]
    assert (keys.m, keys.n, keys.r) == (6, 5, 4)
    assert read.others == ("base_model.model.lm_head.weight",)
    assert torch.equal(read.other_tensors()["base_model.model.lm_head.weight"], torch.arange(6.0))


@pytest.mark.parametrize(
    ("key", "feature"),
    [
        (f"{NAME}.lora_magnitude_vector", "DoRA"),
        (f"{NAME}.lora_B.bias", "lora_bias"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "embedding"),
    ],
)
def test_tensors_of_other_features_are_refused(key: str, feature: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAdapterError, match=feature):
        layout(write_adapter(tmp_path / "a", FACTORS | {key: torch.ones(4)}))


def test_convolutions_are_refused(tmp_path: Path) -> None:
    kernels = {
        f"{NAME}.lora_B.weight": torch.ones(6, 4, 1, 1),
        f"{NAME}.lora_A.weight": torch.ones(4, 5, 3, 3),
    }
    with pytest.raises(UnsupportedAdapterError, match="convolution"):
        layout(write_adapter(tmp_path / "a", kernels))


@pytest.mark.parametrize("shape", [(0,), (0, 4)])
def test_factors_that_were_saved_empty(shape: tuple[int, ...], tmp_path: Path) -> None:
    empty = FACTORS | {f"{NAME}.lora_B.weight": torch.empty(shape)}
    with pytest.raises(BrokenAdapterError, match=r"lora_B\.weight is empty; gather"):
        layout(write_adapter(tmp_path / "a", empty))


@pytest.mark.parametrize("missing", ["lora_A", "lora_B"])
def test_a_factor_without_its_partner(missing: str, tmp_path: Path) -> None:
    alone = {key: tensor for key, tensor in FACTORS.items() if missing not in key}
    with pytest.raises(BrokenAdapterError, match=rf"{missing}\.weight is missing"):
        layout(write_adapter(tmp_path / "a", alone))


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"base_model.model.lm_head.weight": torch.ones(3)}, "no lora_A and lora_B"),
        ({f"{NAME}.lora_A.default.weight": torch.ones(4, 5)}, "not named as PEFT saves it"),
        ({key: tensor.to(torch.int8) for key, tensor in FACTORS.items()}, "dtype I8"),
        (FACTORS | {f"{NAME}.lora_B.weight": torch.ones(6, 3)}, "cannot be multiplied"),
    ],
)
def test_unusable_tensors(tensors: dict[str, torch.Tensor], reason: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenAdapterError, match=reason):
        layout(write_adapter(tmp_path / "a", tensors))


def test_a_rank_unlike_the_configs(tmp_path: Path) -> None:
    with pytest.raises(BrokenAdapterError, match=re.escape("has rank 4, but adapter_config.json says 8")):
        layout(write_adapter(tmp_path / "a", FACTORS, r=8))
    stored = (tmp_path / "a" / "adapter_config.json").rename(tmp_path / "0123abcd")  # as the service calls it
    with pytest.raises(BrokenAdapterError, match=re.escape("has rank 4, but adapter_config.json says 8")):
        AdapterLayout.read(tmp_path / "a" / "adapter_model.safetensors", LoraConfig.read(stored))


def test_a_truncated_file(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", FACTORS)
    model = folder / "adapter_model.safetensors"
    model.write_bytes(model.read_bytes()[:-8])
    with pytest.raises(BrokenAdapterError, match="truncated"):
        layout(folder)


def test_an_empty_file(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", FACTORS)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(BrokenAdapterError, match="truncated"):
        layout(folder)


def test_a_pickle_under_the_wrong_name(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", FACTORS)
    (folder / "adapter_model.safetensors").write_bytes(pickle.dumps({"weights": list(range(99))}))
    with pytest.raises(BrokenAdapterError, match="pickle"):
        layout(folder)


def test_a_zip_under_the_wrong_name(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", FACTORS)
    torch.save(FACTORS, folder / "adapter_model.safetensors")
    with pytest.raises(BrokenAdapterError, match="pickle"):
        layout(folder)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_bin_and_pt_files_are_not_opened(name: str, tmp_path: Path) -> None:
    config = LoraConfig.read(write_adapter(tmp_path / "a", FACTORS) / "adapter_config.json")
    with pytest.raises(BrokenAdapterError, match="safe_serialization"):
        AdapterLayout.read(tmp_path / name, config)


def test_a_missing_file(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", FACTORS)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(BrokenAdapterError, match="the file is missing"):
        layout(folder)
