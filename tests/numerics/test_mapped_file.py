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


def copied(file: MappedFile, *names: str) -> dict[str, Tensor]:
    sizes = [TENSORS[name].numel() for name in names]
    room = torch.full((sum(sizes),), torch.nan)
    with file.reading() as read:
        read(names, room)
    parts = zip(names, torch.split(room, sizes), strict=True)
    return {name: part.view(TENSORS[name].shape) for name, part in parts}


@pytest.mark.parametrize("names", [("a", "b", "c", "d"), ("d", "a"), ("b",), ("a", "c", "d")])
def test_some_tensors_wherever_they_lie(tmp_path: Path, names: tuple[str, ...]) -> None:
    save_file(TENSORS, tmp_path / "file")
    found = copied(MappedFile(tmp_path / "file"), *names)
    assert all(torch.equal(found[name], TENSORS[name]) for name in names)


def test_another_dtype_is_converted(tmp_path: Path) -> None:
    save_file({name: tensor.bfloat16() for name, tensor in TENSORS.items()}, tmp_path / "file")
    found = copied(MappedFile(tmp_path / "file"), *TENSORS)
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
    found = copied(file, *TENSORS)
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("names", [("a", "b", "c", "d"), ("d",)])
def test_a_file_that_was_cut_short_is_not_read_from_its_pages(tmp_path: Path, names: tuple[str, ...]) -> None:
    """They would take the process with them."""
    save_file(TENSORS, tmp_path / "file")
    file = MappedFile(tmp_path / "file")
    os.truncate(tmp_path / "file", (tmp_path / "file").stat().st_size - 8)
    with pytest.raises(OSError, match="cut short"):
        copied(file, *names)


def test_headers_that_are_the_same_are_parsed_once(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "one")
    save_file({name: tensor + 1 for name, tensor in TENSORS.items()}, tmp_path / "other")
    save_file({name: TENSORS[name] for name in "abc"}, tmp_path / "third")
    one, other, third = (MappedFile(tmp_path / name) for name in ("one", "other", "third"))
    assert one.entries is other.entries
    assert third.entries.keys() == {"a", "b", "c"}
    assert torch.equal(other.tensor("b"), TENSORS["b"] + 1)
