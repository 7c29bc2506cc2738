"""Tensors of a mapped file: what they hold, and what becomes of the memory that reading them took."""

import json
import struct
from pathlib import Path

import psutil
import pytest
import torch
from fixtures.dense import checkpoints
from safetensors.torch import save_file

from nextrapolate_numerics import GateThresholds, Relex, Trajectory, extend, extract
from nextrapolate_numerics.series.mapped import MappedFile

SIZE = 8 << 20  # of a tensor: more than a file holds on to


def test_tensors_are_those_of_the_file(tmp_path: Path) -> None:
    saved = {
        "half": torch.randn(3, 5).half(),
        "brain": torch.randn(7).bfloat16(),
        "single": torch.randn(2, 3, 4),
        "double": torch.randn(5, 2, dtype=torch.float64),
    }
    save_file(saved, tmp_path / "a.safetensors", metadata={"format": "pt"})
    mapped = MappedFile(tmp_path / "a.safetensors")
    assert mapped.entries.keys() == saved.keys()
    for name, tensor in saved.items():
        assert torch.equal(mapped.tensor(name), tensor)
        assert mapped.tensor(name).dtype == tensor.dtype


@pytest.mark.parametrize("padding", range(4))
def test_data_may_begin_at_any_byte(padding: int, tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}) + " " * padding
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + struct.pack("<4f", 1, 2, 3, 4))
    assert MappedFile(path).tensor("x").tolist() == [[1, 2], [3, 4]]


def test_tensors_of_other_kinds_may_lie_between(tmp_path: Path) -> None:
    save_file(
        {
            "a": torch.ones(3, dtype=torch.bool),
            "b": torch.zeros(1, dtype=torch.float8_e4m3fn),
            "c": torch.tensor(7),
            "d": torch.empty(0, 4),
            "e": torch.arange(3.0),
        },
        tmp_path / "a.safetensors",
    )
    mapped = MappedFile(tmp_path / "a.safetensors")
    assert mapped.tensor("e").tolist() == [0, 1, 2]
    assert mapped.tensor("d").shape == (0, 4)


def test_no_descriptor_is_kept(tmp_path: Path) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / "a.safetensors")
    before = psutil.Process().num_fds()
    held = [MappedFile(tmp_path / "a.safetensors") for _ in range(5)]
    assert psutil.Process().num_fds() == before
    (tmp_path / "a.safetensors").unlink()
    assert all(mapped.tensor("x").tolist() == [1, 1] for mapped in held)


def resident(path: Path) -> int:
    """Bytes of the file that count as this process's memory."""
    return sum(found.rss for found in psutil.Process().memory_maps() if found.path == str(path))


def test_what_was_read_is_let_go_of_and_read_anew(tmp_path: Path) -> None:
    saved = {f"x{index}": torch.full((SIZE // 4,), float(index)) for index in range(8)}
    path = tmp_path / "a.safetensors"
    save_file(saved, path)
    mapped, held = MappedFile(path), []
    for name, expected in saved.items():
        tensor = mapped.tensor(name)
        assert torch.equal(tensor, expected)
        assert SIZE <= resident(path) <= SIZE + 4096 * 64
        held.append(tensor)
    assert all(torch.equal(tensor, expected) for tensor, expected in zip(held, saved.values(), strict=True))


def test_no_page_of_a_run_is_held_after_it_was_worked_on(run_folder: Path, tmp_path: Path) -> None:
    """Else the pages of the last modules, of all checkpoints, would count beside what is made of them."""
    files = checkpoints(run_folder)
    trajectory, method = Trajectory.open(files), Relex()
    extraction = extract(trajectory, method, 30)
    assert not any(resident(each.model) for each in files)
    combined = []

    def look(fraction: float) -> None:
        combined.append(sum(resident(each.model) for each in files[:-1]))

    update = method.fit(extraction, 30)
    extend(
        extraction,
        update,
        alpha=1.0,
        gate=GateThresholds(0.0, -1.0),
        backtest=None,
        folder=tmp_path,
        on_progress=look,
    )
    assert combined == [0] * len(trajectory.module_names)
