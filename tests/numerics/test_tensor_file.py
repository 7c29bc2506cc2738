"""A file of tensors: what is read of it, whatever becomes of it meanwhile."""

import gc
import json
import os
import resource
import struct
from pathlib import Path

import psutil
import pytest
import torch
from fixtures.dense import checkpoints
from safetensors.torch import save_file
from torch import Tensor

from nextrapolate_numerics import BrokenAdapterError, Relex, Trajectory, extract
from nextrapolate_numerics.series.tensor_file import TensorFile

TENSORS = {
    name: torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    for seed, (name, shape) in enumerate({"a": (3, 5), "b": (700, 4), "c": (2, 2), "d": (9, 1)}.items())
}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])


def copied(file: TensorFile, *names: str) -> dict[str, Tensor]:
    sizes = [TENSORS[name].numel() for name in names]
    room = torch.full((sum(sizes),), torch.nan)
    file.read(names, room)
    parts = zip(names, torch.split(room, sizes), strict=True)
    return {name: part.view(TENSORS[name].shape) for name, part in parts}


def test_tensors_are_those_of_the_file(tmp_path: Path) -> None:
    saved = {
        "half": torch.randn(3, 5).half(),
        "brain": torch.randn(7).bfloat16(),
        "single": torch.randn(2, 3, 4),
        "double": torch.randn(5, 2, dtype=torch.float64),
    }
    save_file(saved, tmp_path / "file", metadata={"format": "pt"})
    file = TensorFile(tmp_path / "file")
    assert file.entries.keys() == saved.keys()
    for name, tensor in saved.items():
        assert torch.equal(file.tensor(name), tensor)
        assert file.tensor(name).dtype == tensor.dtype


@pytest.mark.parametrize("padding", range(4))
def test_data_may_begin_at_any_byte(padding: int, tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}) + " " * padding
    path = tmp_path / "file"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + struct.pack("<4f", 1, 2, 3, 4))
    assert TensorFile(path).tensor("x").tolist() == [[1, 2], [3, 4]]


def test_tensors_of_other_kinds_may_lie_between(tmp_path: Path) -> None:
    save_file(
        {
            "a": torch.ones(3, dtype=torch.bool),
            "b": torch.zeros(1, dtype=torch.float8_e4m3fn),
            "c": torch.tensor(7),
            "d": torch.empty(0, 4),
            "e": torch.arange(3.0),
        },
        tmp_path / "file",
    )
    file = TensorFile(tmp_path / "file")
    assert file.tensor("e").tolist() == [0, 1, 2]
    assert file.tensor("d").shape == (0, 4)


@DTYPES
def test_some_rows_or_columns(tmp_path: Path, dtype: torch.dtype) -> None:
    matrix = torch.randn(7, 11, dtype=torch.float64).to(dtype)
    save_file(
        {"before": torch.ones(5, dtype=dtype), "x": matrix, "y": torch.ones(3, dtype=dtype)},
        tmp_path / "file",
    )
    file = TensorFile(tmp_path / "file")
    for dim, size in enumerate(matrix.shape):
        for start in range(size):
            for length in range(1, size - start + 1):
                room = torch.full((7 * 11 + 1,), torch.nan)
                found = file.part("x", dim, start, length, room)
                assert torch.equal(found, matrix.narrow(dim, start, length).float())
                assert room[found.numel() :].isnan().all()


@pytest.mark.parametrize("names", [("a", "b", "c", "d"), ("d", "a"), ("b",), ("a", "c", "d")])
def test_some_tensors_wherever_they_lie(tmp_path: Path, names: tuple[str, ...]) -> None:
    save_file(TENSORS, tmp_path / "file")
    found = copied(TensorFile(tmp_path / "file"), *names)
    assert all(torch.equal(found[name], TENSORS[name]) for name in names)


@DTYPES
def test_another_dtype_is_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({name: tensor.to(dtype) for name, tensor in TENSORS.items()}, tmp_path / "file")
    found = copied(TensorFile(tmp_path / "file"), *TENSORS)
    assert all(torch.equal(found[name], TENSORS[name].to(dtype).float()) for name in TENSORS)


@pytest.mark.parametrize("fate", ["deleted", "replaced", "moved"])
def test_the_file_that_was_opened_is_the_one_that_is_read(tmp_path: Path, fate: str) -> None:
    path = tmp_path / "file"
    save_file(TENSORS, path)
    file = TensorFile(path)
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
def test_what_a_file_has_lost_is_missed(tmp_path: Path, names: tuple[str, ...]) -> None:
    save_file(TENSORS, tmp_path / "file")
    file = TensorFile(tmp_path / "file")
    os.truncate(tmp_path / "file", (tmp_path / "file").stat().st_size - 8)
    with pytest.raises(OSError, match="cut short"):
        copied(file, *names)


def test_a_checkpoint_that_is_cut_short_under_a_job_is_named(run_folder: Path) -> None:
    """It would have taken the process with it, had it been mapped."""
    files = checkpoints(run_folder)
    trajectory = Trajectory.open(files)
    os.truncate(files[3].model, files[3].model.stat().st_size // 2)
    with pytest.raises(BrokenAdapterError, match="cut short while it was read") as refusal:
        extract(trajectory, Relex(), 30)
    assert refusal.value.path == files[3].model


def test_a_file_is_closed_with_the_last_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_file(TENSORS, path)

    def times_open() -> int:
        return [found.path for found in psutil.Process().open_files()].count(str(path))

    held = [TensorFile(path) for _ in range(5)]
    assert times_open() == 5
    held.clear()
    gc.collect()
    assert times_open() == 0


def test_more_files_than_the_system_allows_are_an_error_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_file(TENSORS, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    refused = []
    try:
        for more in range(9):  # it takes some to be opened
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + more, hard))
            try:
                TensorFile(path)
                break
            except OSError as error:
                refused.append(str(error))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 1 < len(refused) < 9
    assert all("Too many open files" in reason for reason in refused)


def test_no_page_of_a_run_is_ever_mapped(run_folder: Path) -> None:
    """Else the pages of the last modules, of all checkpoints, would count beside what is made of them."""
    files = checkpoints(run_folder)
    extraction = extract(Trajectory.open(files), Relex(), 30)
    paths = {str(each.model) for each in files}
    assert not [found for found in psutil.Process().memory_maps() if found.path in paths]
    assert extraction.moved


def test_headers_that_are_the_same_are_parsed_once(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "one")
    save_file({name: tensor + 1 for name, tensor in TENSORS.items()}, tmp_path / "other")
    save_file({name: TENSORS[name] for name in "abc"}, tmp_path / "third")
    one, other, third = (TensorFile(tmp_path / name) for name in ("one", "other", "third"))
    assert one.entries is other.entries
    assert third.entries.keys() == {"a", "b", "c"}
    assert torch.equal(other.tensor("b"), TENSORS["b"] + 1)
