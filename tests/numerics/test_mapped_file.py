"""Tensors copied from a file into memory that is given: what the mapped ones hold, whatever became of it."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from nextrapolate_numerics.series.mapped import MappedFile

TENSORS = {
    name: torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    for seed, (name, shape) in enumerate({"a": (3, 5), "b": (700, 4), "c": (2, 2), "d": (9, 1)}.items())
}


def rooms(*names: str) -> dict[str, Tensor]:
    return {name: torch.full_like(TENSORS[name], torch.nan) for name in names}


@pytest.mark.parametrize("names", [("a", "b", "c", "d"), ("d", "a"), ("b",), ("a", "c", "d")])
def test_some_tensors_wherever_they_lie(tmp_path: Path, names: tuple[str, ...]) -> None:
    save_file(TENSORS, tmp_path / "file")
    found = rooms(*names)
    MappedFile(tmp_path / "file").read(found)
    assert all(torch.equal(found[name], TENSORS[name]) for name in names)


def test_another_dtype_is_converted(tmp_path: Path) -> None:
    save_file({name: tensor.bfloat16() for name, tensor in TENSORS.items()}, tmp_path / "file")
    found = rooms(*TENSORS)
    MappedFile(tmp_path / "file").read(found)
    assert all(torch.equal(found[name], TENSORS[name].bfloat16().float()) for name in TENSORS)


@pytest.mark.parametrize("fate", ["deleted", "replaced", "moved"])
def test_the_file_that_was_mapped_is_the_one_that_is_read(tmp_path: Path, fate: str) -> None:
    path = tmp_path / "file"
    save_file(TENSORS, path)
    file = MappedFile(path)
    if fate == "deleted":
        path.unlink()
    elif fate == "moved":
        path.rename(tmp_path / "elsewhere")
    else:
        save_file({name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}, tmp_path / "other")
        (tmp_path / "other").replace(path)
    found = rooms(*TENSORS)
    file.read(found)
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def test_more_tensors_than_the_system_takes_in_one_call(tmp_path: Path) -> None:
    many = {f"{index:05}": torch.tensor([float(index)]) for index in range(os.sysconf("SC_IOV_MAX") + 9)}
    save_file(many, tmp_path / "file")
    found = {name: torch.zeros(1) for name in many}
    MappedFile(tmp_path / "file").read(found)
    assert all(torch.equal(found[name], many[name]) for name in many)
