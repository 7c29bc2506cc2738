"""A safetensors file, held open: of its tensors what is asked for is read, into memory.

Its pages are not mapped. Those that were touched would count as the process's memory, and of hundreds of
files be more than a job may have; a file that is cut short would take the process with it; and to copy what
the system has in its cache takes no longer than to map it.
"""

import json
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}
"""Those that factors may have, by their safetensors names."""


@dataclass(frozen=True)
class Entry:
    """What the header says of one tensor.

    Attributes:
        dtype: its safetensors name.
        shape: lengths of its axes.
        begin: its first byte in the file.
        end: the byte after its last one.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """A file of tensors, open for as long as this is held: it may be moved, deleted or replaced meanwhile.

    Several threads may read from it at a time.

    Args:
        path: where it is.

    Attributes:
        entries: what its header says of its tensors, by name; one object, as a rule, for files whose headers
            are the same.

    Raises:
        SafetensorError: what it says of itself does not hold.
        OSError: it cannot be opened, or more files are open than the system allows.
    """

    entries: Mapping[str, Entry]

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        try:
            with safe_open(path, framework="pt"):
                pass  # the header is sound, and all tensors lie within the file
        except FileNotFoundError:  # it says so of every file that the system does not open
            os.close(os.open(path, os.O_RDONLY))
            raise
        except RuntimeError as reason:
            raise OSError(str(reason)) from None
        length = int.from_bytes(self._bytes(0, 8), "little")
        self.entries = _entries(self._bytes(8, length))

    def tensor(self, name: str) -> Tensor:
        """One tensor whole, as stored, in memory of its own.

        Raises:
            KeyError: there is none of that name, or it is of a dtype that no factor has.
            OSError: the file was cut short, or cannot be read any more.
        """
        entry = self.entries[name]
        return self._tensor(entry, [(entry.begin, entry.end)]).view(entry.shape)

    def part(self, name: str, dim: int, start: int, length: int, room: Tensor) -> Tensor:
        """Some rows (`dim` 0) or columns (1) of a matrix, read into memory that is given.

        Args:
            name: of the tensor.
            dim: the axis.
            start: the first of them.
            length: how many.
            room: as many entries as they have at least, contiguous, on the CPU.

        Returns:
            A view of the room, (length, columns) or (rows, length).

        Raises:
            KeyError: as of `tensor`.
            OSError: likewise.
        """
        entry = self.entries[name]
        rows, columns = entry.shape
        shape = (length, columns) if dim == 0 else (rows, length)
        each = DTYPES[entry.dtype].itemsize
        if shape[1] == columns:
            begin = entry.begin + each * columns * (start if dim == 0 else 0)
            ranges = [(begin, begin + each * prod(shape))]
        else:
            begins = range(entry.begin + each * start, entry.end, each * columns)
            ranges = [(begin, begin + each * length) for begin in begins]
        room = room[: prod(shape)]
        if DTYPES[entry.dtype] is room.dtype:
            self._fill(_memory(room), ranges)
        else:
            room.copy_(self._tensor(entry, ranges))
        return room.view(shape)

    def read(self, names: Sequence[str], room: Tensor) -> None:
        """Copy tensors, one behind the other, into memory that is given; those that lie so in one call.

        Args:
            names: of the tensors.
            room: as many entries as they have, contiguous, on the CPU.

        Raises:
            KeyError: as of `tensor`.
            OSError: likewise.
        """
        entries = [self.entries[name] for name in names]
        if all(DTYPES[entry.dtype] is room.dtype for entry in entries):
            self._fill(_memory(room), _runs(entries))
            return
        for name, part in zip(names, torch.split(room, [prod(of.shape) for of in entries]), strict=True):
            part.copy_(self.tensor(name).flatten())

    def _tensor(self, entry: Entry, ranges: Sequence[tuple[int, int]]) -> Tensor:
        """Bytes of ranges one behind the other, as entries of a dtype."""
        room = torch.empty(sum(end - begin for begin, end in ranges), dtype=torch.uint8)
        self._fill(_memory(room), ranges)
        return room.view(DTYPES[entry.dtype])

    def _bytes(self, begin: int, count: int) -> bytes:
        room = bytearray(count)
        self._fill(memoryview(room), [(begin, begin + count)])
        return bytes(room)

    def _fill(self, room: memoryview, ranges: Sequence[tuple[int, int]]) -> None:
        at = 0
        for begin, end in ranges:
            while begin < end:  # a system call reads two gigabytes at most
                count = os.preadv(self._descriptor, [room[at : at + end - begin]], begin)
                if not count:
                    raise OSError("it was cut short while it was read")
                at, begin = at + count, begin + count


def _memory(room: Tensor) -> memoryview:
    bytes_of: Any = room.view(torch.uint8).numpy()
    return memoryview(bytes_of)


@lru_cache(maxsize=4)
def _entries(header: bytes) -> Mapping[str, Entry]:
    """What a header says; a run's files all have the same one, as a rule."""
    data, tensors = 8 + len(header), json.loads(header)
    tensors.pop("__metadata__", None)
    entries = {
        name: Entry(found["dtype"], tuple(found["shape"]), *(data + end for end in found["data_offsets"]))
        for name, found in tensors.items()
    }
    return MappingProxyType(entries)  # of several files


def _runs(entries: Sequence[Entry]) -> list[tuple[int, int]]:
    """Beginning and end of those that lie one behind the other."""
    found: list[tuple[int, int]] = []
    for entry in entries:
        begin = entry.begin
        if found and found[-1][1] == begin:
            begin = found.pop()[0]
        found.append((begin, entry.end))
    return found
